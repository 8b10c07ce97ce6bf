package router

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"
)

// ways is how many entries share a bucket of the cache.
const ways = 8

// maxCached is the longest text that is remembered, by itself or by its shape.
const maxCached = 16 * maxShape

// maxLearned is how many shapes are remembered as refused by a standby.
const maxLearned = 65536

// cache remembers the units of statements in two tables: by exact text, and by shape. A
// table is an array of slots in buckets; a slot is read and replaced atomically and no lock is
// held on the way to a unit, so every bucket is a shard of its own. An entry is believed only
// when its whole key is equal.
type cache struct {
	seed   maphash.Seed
	texts  table
	shapes table
	seen   []atomic.Uint32 // hashes of texts seen once: a text is kept from its second time on
	pool   sync.Pool       // of *[]byte, for shapes
	// giveWay lets others run while a long text is read; nil: nobody waits.
	giveWay func()

	learning sync.Mutex
	learned  atomic.Pointer[map[learnedKey]struct{}] // replaced as a whole
}

// learnedKey names a shape of one database that a standby refused.
type learnedKey struct {
	cluster, database string
	hash              uint64
}

// entry is one remembered unit.
type entry struct {
	hash     uint64
	key      string // the text, or the shape
	cluster  string
	database string
	gen      uint64
	path     *Path
	std      bool
	exact    bool   // of a shape: constants decide, so ask by text
	shape    uint16 // of a text: a part of the hash of its shape, in room that the fields leave
	used     atomic.Bool
	units    [HintAuto + 1]*Unit // by the hint of the leading comment
	own      Unit
	hinted   [HintAuto]Unit
}

// newCache makes a cache of about size entries a table.
func newCache(size, maxBytes int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	n := ways
	for n < size {
		n *= 2
	}
	c.texts.init(n, maxBytes/2)
	c.shapes.init(n, maxBytes/2)
	c.seen = make([]atomic.Uint32, n)
	c.pool.New = func() any {
		b := make([]byte, 0, maxShape+256)
		return &b
	}
	return c
}

// table is an array of buckets.
type table struct {
	slots    []atomic.Pointer[entry]
	tags     []atomic.Uint32 // of each slot a part of its entry's hash: a miss reads no entry
	mask     uint64
	bytes    atomic.Int64
	maxBytes int64
	hand     atomic.Uint64
}

// init gives the table n slots, a power of two.
func (t *table) init(n, maxBytes int) {
	t.slots = make([]atomic.Pointer[entry], n)
	t.tags = make([]atomic.Uint32, n)
	t.mask = uint64(n/ways - 1)
	t.maxBytes = int64(maxBytes)
}

// bucket is the index of the first of the slots that an entry with the hash may stand in.
func (t *table) bucket(hash uint64) int { return int(hash&t.mask) * ways }

// tag is the part of a hash that stands beside the slot; never 0, as an empty slot has.
func tag(hash uint64) uint32 { return uint32(hash>>32) | 1 }

// is reports whether the entry is that of key in env.
func (e *entry) is(hash uint64, key []byte, env *Env) bool {
	return e.hash == hash && e.std == env.StdStrings && e.path == env.Path && e.gen == env.generation() &&
		string(key) == e.key && e.database == env.Database && e.cluster == env.Cluster
}

// get is the entry of key in env, nil when there is none.
func (t *table) get(hash uint64, key []byte, env *Env) *entry {
	first := t.bucket(hash)
	tags := t.tags[first : first+ways]
	for i := range tags {
		if tags[i].Load() != tag(hash) {
			continue
		}
		if e := t.slots[first+i].Load(); e != nil && e.is(hash, key, env) {
			if !e.used.Load() {
				e.used.Store(true)
			}
			return e
		}
	}
	return nil
}

// put stores e, in the place of an entry with the same key, an empty slot, or one that was
// not used of late.
func (t *table) put(e *entry, key []byte, env *Env) {
	first := t.bucket(e.hash)
	victim := -1
	for i := first; i < first+ways; i++ {
		old := t.slots[i].Load()
		if old != nil && old.is(e.hash, key, env) {
			victim = i
			break
		}
		if old == nil && victim < 0 {
			victim = i
		}
	}
	for turn := 0; victim < 0; turn++ {
		i := first + int(t.hand.Add(1)%ways)
		if old := t.slots[i].Load(); old == nil || !old.used.Swap(false) || turn >= 2*ways {
			victim = i
		}
	}
	t.replace(victim, e)
	for n := 0; t.bytes.Load() > t.maxBytes && n < len(t.slots); n++ {
		i := int(t.hand.Add(1) % uint64(len(t.slots)))
		if old := t.slots[i].Load(); old != nil && old != e && !old.used.Swap(false) {
			t.replace(i, nil)
		}
	}
}

// replace puts e into a slot and keeps count of the bytes. Where two do so at once the tag may be that of the other
// entry: then the slot is not found until it is replaced again.
func (t *table) replace(slot int, e *entry) {
	old := t.slots[slot].Swap(e)
	if old != nil {
		t.bytes.Add(-old.size())
	}
	if e == nil {
		t.tags[slot].Store(0)
		return
	}
	t.tags[slot].Store(tag(e.hash))
	t.bytes.Add(e.size())
}

// size is about what the entry takes, with the effects of its unit.
func (e *entry) size() int64 {
	n := int64(len(e.key)) + 1024
	if u := e.units[HintNone]; u != nil {
		for i := range u.Effects {
			n += int64(unsafe.Sizeof(Effect{})) + int64(len(u.Effects[i].Name)+len(u.Effects[i].Value))
		}
	}
	return n
}

// generation is the catalog's generation; no catalog at all is one of its own.
func (env *Env) generation() uint64 {
	if env.Catalog == nil {
		return ^uint64(0)
	}
	return env.Catalog.Generation
}

// hash is the hash of key in env.
func (c *cache) hash(key []byte, env *Env) uint64 {
	h := maphash.Bytes(c.seed, key) ^ env.generation()*0x9e3779b97f4a7c15
	h ^= maphash.String(c.seed, env.Database) * 3
	h ^= maphash.Comparable(c.seed, env.Path) * 5
	if env.StdStrings {
		h = ^h
	}
	return h ^ h>>32
}

// classify is the unit of a text, remembered or made.
func (c *cache) classify(text []byte, env *Env) *Unit {
	if len(text) > maxCached {
		return c.fresh(text, env)
	}
	hash := c.hash(text, env)
	if e := c.texts.get(hash, text, env); e != nil {
		return e.units[HintNone]
	}
	scratch := c.pool.Get().(*[]byte)
	key, ok := shape((*scratch)[:0], text, env.StdStrings)
	var u *Unit
	if ok {
		u = c.byShape(key, hash, text, env)
	} else {
		u = c.fresh(text, env)
	}
	c.pool.Put(scratch)
	return u
}

// byShape is classify for a text whose shape is key.
func (c *cache) byShape(key []byte, textHash uint64, text []byte, env *Env) *Unit {
	hash := c.hash(key, env)
	e := c.shapes.get(hash, key, env)
	if e != nil && !e.exact {
		u := e.units[leadingHint(text)]
		if c.again(textHash, text) {
			c.texts.put(c.textEntry(textHash, text, key, env, u), text, env)
		}
		return u
	}
	u, literals := c.parse(text, env)
	if c.isLearned(key, env) {
		u, literals = learnedUnit(u), false
	}
	if e == nil {
		c.shapes.put(c.entry(hash, key, env, u, literals), key, env)
	}
	u = withHint(u, leadingHint(text))
	if literals {
		c.texts.put(c.textEntry(textHash, text, key, env, u), text, env)
	}
	return u
}

// parse is parse for a text that others do not wait for.
func (c *cache) parse(text []byte, env *Env) (u *Unit, literals bool) {
	if len(text) <= stride {
		return parse(text, env, nil)
	}
	if c.giveWay != nil {
		c.giveWay() // its shape was looked for already
	}
	return parse(text, env, c.giveWay)
}

// fresh is the unit of a text that has no shape.
func (c *cache) fresh(text []byte, env *Env) *Unit {
	u, _ := c.parse(text, env)
	if m := c.learned.Load(); m != nil && c.isLearned(text, env) {
		u = learnedUnit(u)
	}
	return withHint(u, leadingHint(text))
}

// again reports whether a text of a known shape was seen before, so that it is worth remembering.
func (c *cache) again(hash uint64, text []byte) bool {
	if len(text) > maxShape {
		return false
	}
	door := &c.seen[hash%uint64(len(c.seen))]
	mark := tag(hash)
	if door.Load() != mark {
		door.Store(mark)
		return false
	}
	return true
}

// textEntry makes the entry of an exact text whose shape is key; the hint is part of its unit.
func (c *cache) textEntry(hash uint64, text, key []byte, env *Env, u *Unit) *entry {
	e := &entry{
		hash: hash, key: string(text), cluster: env.Cluster, database: env.Database,
		gen: env.generation(), path: env.Path, std: env.StdStrings, shape: uint16(maphash.Bytes(c.seed, key)),
	}
	e.units[HintNone] = u
	return e
}

// entry makes the entry of a shape, with a unit for every hint.
func (c *cache) entry(hash uint64, key []byte, env *Env, u *Unit, exact bool) *entry {
	e := &entry{
		hash: hash, key: string(key), cluster: env.Cluster, database: env.Database,
		gen: env.generation(), path: env.Path, std: env.StdStrings, exact: exact,
	}
	if exact {
		return e
	}
	e.own = *u
	e.own.Hint = HintNone
	e.units[HintNone] = &e.own
	for h := HintPrimary; h <= HintAuto; h++ {
		e.hinted[h-1] = *u
		e.hinted[h-1].Hint = h
		e.units[h] = &e.hinted[h-1]
	}
	return e
}

// withHint is u with the hint h.
func withHint(u *Unit, h Hint) *Unit {
	if u.Hint == h {
		return u
	}
	n := *u
	n.Hint = h
	return &n
}

// learnedUnit is u after a standby refused it.
func learnedUnit(u *Unit) *Unit {
	n := *u
	if n.Class == ClassPrimary {
		return &n
	}
	n.Class, n.Reason, n.Mark = ClassPrimary, ReasonLearned, MarkWrite
	n.Flags = n.Flags&^FlagCatalog | FlagMayCommit
	return &n
}

// learn remembers that texts of this shape are refused by standbys.
func (c *cache) learn(text []byte, env *Env) {
	var key []byte
	ok := len(text) <= maxCached
	if ok {
		key, ok = shape(nil, text, env.StdStrings)
	}
	if !ok {
		key = text
	}
	hash := maphash.Bytes(c.seed, key)
	c.addLearned(learnedKey{env.Cluster, env.Database, hash})
	forget := func(t *table, same func(*entry) bool) {
		for i := range t.slots {
			e := t.slots[i].Load()
			if e != nil && e.cluster == env.Cluster && e.database == env.Database && same(e) && t.slots[i].CompareAndSwap(e, nil) {
				t.bytes.Add(-e.size())
			}
		}
	}
	if !ok {
		return
	}
	forget(&c.shapes, func(e *entry) bool { return e.key == string(key) })
	forget(&c.texts, func(e *entry) bool { return e.shape == uint16(hash) })
}

// addLearned adds a key to the set of what was learned; when it is full it starts again.
func (c *cache) addLearned(k learnedKey) {
	c.learning.Lock()
	defer c.learning.Unlock()
	old := c.learned.Load()
	m := make(map[learnedKey]struct{})
	if old != nil && len(*old) < maxLearned {
		for o := range *old {
			m[o] = struct{}{}
		}
	}
	m[k] = struct{}{}
	c.learned.Store(&m)
}

// isLearned reports whether a shape (or a text without one) was learned.
func (c *cache) isLearned(key []byte, env *Env) bool {
	m := c.learned.Load()
	if m == nil {
		return false
	}
	_, ok := (*m)[learnedKey{env.Cluster, env.Database, maphash.Bytes(c.seed, key)}]
	return ok
}
