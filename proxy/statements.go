package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync"
	"sync/atomic"
)

// statementTable numbers prepared statements, so that sessions which prepare the same text share it on
// the connections that they take turns on. A number is never used for another text.
type statementTable struct {
	prefix string // of the names on nodes: nobody can guess it
	last   atomic.Uint64

	mu struct {
		sync.Mutex
		young, old map[string]uint64 // two generations, so that texts which are used stay
	}
}

const (
	// reservedPrefix begins the names of statements on nodes.
	reservedPrefix = "pgweir_"
	// maxStatements is how many texts a generation holds.
	maxStatements = 10_000
	// maxShared is the longest text that is shared.
	maxShared = 16 << 10
)

// newStatementTable is an empty table.
func newStatementTable() *statementTable {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never returns an error
	t := &statementTable{prefix: reservedPrefix + hex.EncodeToString(b[:]) + "_"}
	t.mu.young = make(map[string]uint64)
	return t
}

// next is a number for a statement that nobody shares.
func (t *statementTable) next() uint64 { return t.last.Add(1) }

// intern is the number of a text: parse is the body of its Parse message behind the name, plans what
// its meaning depends on beside the text.
func (t *statementTable) intern(plans string, parse []byte) uint64 {
	if len(parse) > maxShared {
		return t.next()
	}
	key := append(append(make([]byte, 0, len(plans)+len(parse)+1), plans...), 0)
	key = append(key, parse...)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.mu.young[string(key)]; ok {
		return n
	}
	n, ok := t.mu.old[string(key)]
	if !ok {
		n = t.next()
	}
	if len(t.mu.young) >= maxStatements {
		t.mu.young, t.mu.old = make(map[string]uint64), t.mu.young
	}
	t.mu.young[string(key)] = n
	return n
}

// name is what a statement is called on the nodes.
func (t *statementTable) name(version uint64) string {
	return t.prefix + strconv.FormatUint(version, 36)
}

// ownNames is an error's body with the client's names of its statements in place of the nodes'. Several of them may have one
// name there: the error is about st, if it is not nil.
func (s *session) ownNames(body []byte, st *statement) []byte {
	replace := func(name string, of *statement) {
		if of != nil && of.node != "" {
			body = bytes.ReplaceAll(body, []byte(of.node+"\""), []byte(name+"\""))
		}
	}
	for _, first := range []bool{true, false} {
		for _, d := range s.sent {
			if first == (d.st == st) {
				replace(d.name, d.st)
			}
		}
		for name, of := range s.named {
			if first == (of == st) {
				replace(name, of)
			}
		}
	}
	return body
}

// sequenceUsers is who asks for currval or lastval: their sessions keep the connection that has the values.
type sequenceUsers struct{ m sync.Map }

// sequenceUser is one user of one database.
type sequenceUser struct{ cluster, database, user string }

// note records that the session asked.
func (u *sequenceUsers) note(s *session) {
	u.m.Store(sequenceUser{s.cluster.Name, s.target.Database, s.user}, true)
}

// known says whether any session of this user has asked.
func (u *sequenceUsers) known(s *session) bool {
	_, ok := u.m.Load(sequenceUser{s.cluster.Name, s.target.Database, s.user})
	return ok
}
