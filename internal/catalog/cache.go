package catalog

// cache keeps, from one read of a database to the next, what its bodies and rules were found
// to use, so that only changed ones are fetched again. A row's xmin tells whether it changed.
// It belongs to the one goroutine that reads that database.
type cache struct {
	names     *symbols
	functions map[uint32]cachedCode
	rules     map[uint32]cachedCode
}

// cachedCode is what one row's code was found to use.
type cachedCode struct {
	version        uint32 // xmin
	body, defaults *code
}

// maxStaleNames bounds the names of things that are gone.
const maxStaleNames = 500_000

// newCache returns an empty cache.
func newCache() *cache {
	c := &cache{}
	c.clear()
	return c
}

// clear forgets everything.
func (c *cache) clear() {
	c.names = newSymbols()
	c.functions = make(map[uint32]cachedCode)
	c.rules = make(map[uint32]cachedCode)
}

// trim clears a cache that holds more names than what is live can explain.
func (c *cache) trim() {
	if len(c.names.list) > maxStaleNames+20*(len(c.functions)+len(c.rules)) {
		c.clear()
	}
}

// oidList collects the oids of rows that are not cached, as the text of an oid[].
type oidList struct {
	text []byte
	n    int
}

// add appends an oid.
func (l *oidList) add(oid uint32) {
	if l.n > 0 {
		l.text = append(l.text, ',')
	}
	l.text = appendNumber(l.text, oid)
	l.n++
}

// String returns the array.
func (l *oidList) String() string { return "{" + string(l.text) + "}" }
