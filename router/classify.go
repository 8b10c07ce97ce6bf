package router

// Env is what a classification depends on beside the text. It belongs to one session; the
// classifier only reads it while it runs.
type Env struct {
	// Cluster and Database say whose names the text speaks of. They are compared as a whole;
	// it is cheapest when equal ones are the same string.
	Cluster, Database string
	// Catalog is what that database says. nil: nothing is known but what is built in, so that
	// every other function and relation is unknown and its statement goes to the primary. See
	// AssumeTables in Catalog for when there is no database at all.
	Catalog *Catalog
	// Path is the session's resolved search path; nil when it is not known: then every bare name
	// that is not built in is unknown.
	Path *Path
	// StdStrings is the session's standard_conforming_strings.
	StdStrings bool
	// UnsafeEncoding: in the session's client_encoding a character may end in a byte that
	// looks like a backslash or a quote. Text that is not plain ASCII is not looked into.
	UnsafeEncoding bool
}

// Config is what a Classifier is made with.
type Config struct {
	// CacheSize is how many statement shapes, and how many exact texts, are remembered at most.
	CacheSize int
	// CacheBytes bounds the memory that they take.
	CacheBytes int
	// GiveWay, if it is not nil, is called every few hundred microseconds while a long text is read, by the goroutine that
	// reads it: it may let others run.
	GiveWay func()
}

// DefaultConfig is a cache of 16,384 shapes and as many texts in at most 64 MiB.
func DefaultConfig() Config { return Config{CacheSize: 16384, CacheBytes: 64 << 20} }

// Classifier says what statements may do, and remembers it. Its methods may be called from any
// goroutine and never block, unless GiveWay does.
type Classifier struct {
	cache *cache
}

// New makes a Classifier. Values of cfg that are not positive are the default's.
func New(cfg Config) *Classifier {
	d := DefaultConfig()
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = d.CacheSize
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = d.CacheBytes
	}
	c := &Classifier{cache: newCache(cfg.CacheSize, cfg.CacheBytes)}
	c.cache.giveWay = cfg.GiveWay
	return c
}

// Classify says what the text of a simple query, or of a prepared statement, may do. It never
// fails: what it does not understand goes to the primary. sql is not kept. For a text of a
// known shape nothing is allocated.
//
// An ERROR of class 42 that the server answers to a unit of one statement proves that nothing
// of it has run, so its flags and effects may be forgotten then.
func (c *Classifier) Classify(sql []byte, env *Env) *Unit {
	if env.UnsafeEncoding && !ascii(sql) {
		return encodingUnit
	}
	return c.cache.classify(sql, env)
}

// Learn says that a standby refused the statement: texts of its shape go to the primary from
// now on, in that cluster and database, with ReasonLearned.
func (c *Classifier) Learn(sql []byte, env *Env) {
	if env.UnsafeEncoding && !ascii(sql) {
		return
	}
	c.cache.learn(sql, env)
}

// encodingUnit is the unit of a text that cannot be looked into.
var encodingUnit = &Unit{
	Class: ClassPrimary, Reason: ReasonEncoding, Mark: MarkWrite, Statements: 1, Certain: true,
	Flags: FlagUnparsed | FlagOpaque | FlagLasting | FlagNextval | FlagMayCommit,
}

// ascii reports whether a text is plain ASCII.
func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// Join is the unit of a batch: what a holds, and behind it what b holds. Either may be nil.
// It allocates only when the two do not say the same.
func Join(a, b *Unit) *Unit {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	u := *a
	JoinInto(&u, b)
	return &u
}

// JoinInto adds what b holds behind what u holds. It appends to u's effects in place where
// they have room, so u must be the caller's own.
func JoinInto(u, b *Unit) {
	readOnly := (u.Class != ClassPrimary || u.Flags&FlagReadInReadOnly != 0) &&
		(b.Class != ClassPrimary || b.Flags&FlagReadInReadOnly != 0)
	params := u.settingParams() && b.settingParams() && (u.Flags|b.Flags)&FlagSettingParam != 0
	if u.Statements == 0 {
		u.Command, u.Show = b.Command, b.Show
	} else if b.Statements > 0 {
		u.Show = ""
	}
	if u.Hint == HintNone {
		u.Hint = b.Hint
	}
	if b.Statements > 0 && u.Statements > 0 {
		u.Flags |= FlagMulti
	}
	before := u.Statements
	u.Statements += b.Statements
	u.Flags |= b.Flags
	many := !u.leave(b.Leaves)
	if !readOnly {
		u.Flags &^= FlagReadInReadOnly
	}
	if !params {
		u.Flags &^= FlagSettingParam
	}
	s := strength(0)
	if b.Certain {
		s |= certain
	}
	if b.StandbyError {
		s |= standbyError
	}
	if b.Statements > 0 {
		raise(u, b.Class, b.Reason, b.Mark, s)
	}
	if many {
		u.Flags |= FlagOpaque | FlagLasting
		raise(u, ClassPrimary, ReasonState, MarkRead, certain)
	}
	for _, e := range b.Effects {
		e.Statement += before
		u.Effects = append(u.Effects, e)
	}
	settle(u)
	u.OnlyTx = u.Statements == 1 && len(u.Effects) == 1 && (u.OnlyTx || b.OnlyTx)
}

// settingParams reports whether nothing but FlagSettingParam makes the unit primary or opaque.
func (u *Unit) settingParams() bool {
	return u.Flags&FlagSettingParam != 0 || u.Class != ClassPrimary && u.Flags&FlagOpaque == 0
}
