package proxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgweir/health"
)

// firstPID is the smallest virtual process id: no real backend has one above PostgreSQL's limit
// of 4,194,304 on Linux, so a virtual pid never names a backend by accident.
const firstPID = 4_194_304 + 1

// Secret lengths in bytes: protocol 3.0 has room for four, 3.2 for more.
const (
	secretShort = 4
	secretLong  = 32
)

// keyTable knows which session a cancel key belongs to, and which session holds a backend.
type keyTable struct {
	process uint32 // this process's number, in the upper bits of every pid
	mu      struct {
		sync.Mutex
		next     uint32
		sessions map[uint32]*session
		consoles map[uint32]*consoleSession
		backends map[backend]*holding
	}
}

// holding is who has a backend: the pid of the session that holds it, or held it last, and of those that have sent
// notifications over it, which may arrive when others have it.
type holding struct {
	atomic.Uint32
	mu struct {
		sync.Mutex
		spoke [4]spoken // the newest first
	}
}

// spoken is a session that has sent a notification, and when: health.Clock.
type spoken struct {
	pid uint32
	at  int64
}

// underWay is how long a notification counts as one that may still arrive. A listener in a transaction hears it later.
const underWay = int64(time.Second)

// speaks records that a session sends a notification.
func (h *holding) speaks(pid uint32, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.mu.spoke
	at := slices.IndexFunc(s[:], func(o spoken) bool { return o.pid == pid })
	if at < 0 {
		at = len(s) - 1
	}
	copy(s[1:at+1], s[:at])
	s[0] = spoken{pid, now}
}

// speaker is the pid of the session whose notification arrives now, 0 where it may be one of several.
func (h *holding) speaker(now int64) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.mu.spoke
	switch {
	case s[0].at == 0 || now-s[0].at > underWay:
		return h.Load()
	case s[1].at != 0 && now-s[1].at <= underWay:
		return 0
	}
	return s[0].pid
}

// backend is a server process somewhere behind the proxy.
type backend struct {
	cluster string
	node    int
	pid     uint32
}

// Bits of a virtual pid: 30 in all (it must stay positive and above firstPID); the upper ones are the process's.
const (
	pidBits     = 22
	pidMask     = 1<<pidBits - 1
	maxProcess  = 1<<8 - 1
	processBase = 1 // so that the smallest pid is above firstPID
)

// newKeyTable is a table for the process of that number, from 0 to maxProcess.
func newKeyTable(process int) *keyTable {
	t := &keyTable{process: uint32(process)}
	t.mu.sessions = make(map[uint32]*session)
	t.mu.consoles = make(map[uint32]*consoleSession)
	t.mu.backends = make(map[backend]*holding)
	return t
}

// newSecret is a cancel key's secret; long ones are for clients of protocol 3.2.
func newSecret(long bool) []byte {
	n := secretShort
	if long {
		n = secretLong
	}
	secret := make([]byte, n)
	_, _ = rand.Read(secret) // never returns an error
	return secret
}

// free is a pid that nobody has. The lock is held.
func (t *keyTable) free() uint32 {
	for {
		t.mu.next++
		pid := (processBase+t.process)<<pidBits | t.mu.next&pidMask
		if pid >= firstPID && t.mu.sessions[pid] == nil && t.mu.consoles[pid] == nil {
			return pid
		}
	}
}

// register gives the session its pid and secret.
func (t *keyTable) register(s *session, long bool) {
	s.secret = newSecret(long)
	t.mu.Lock()
	defer t.mu.Unlock()
	s.pid.Store(t.free())
	t.mu.sessions[s.pid.Load()] = s
}

// registerConsole gives a client of the console its pid and secret.
func (t *keyTable) registerConsole(cs *consoleSession, long bool) {
	cs.secret = newSecret(long)
	t.mu.Lock()
	defer t.mu.Unlock()
	cs.pid = t.free()
	t.mu.consoles[cs.pid] = cs
}

// unregisterConsole forgets a client of the console.
func (t *keyTable) unregisterConsole(cs *consoleSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.consoles, cs.pid)
}

// consoles is every client of the console.
func (t *keyTable) consoles() []*consoleSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.mu.consoles))
}

// console is the client of the console that a pid belongs to, nil when there is none.
func (t *keyTable) console(pid uint32) *consoleSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.consoles[pid]
}

// findConsole is the client of the console that a cancel key belongs to, nil when it is nobody's.
func (t *keyTable) findConsole(pid uint32, secret []byte) *consoleSession {
	cs := t.console(pid)
	if cs == nil || subtle.ConstantTimeCompare(cs.secret, secret) != 1 {
		return nil
	}
	return cs
}

// rename gives the session the process id of a lease in place of its virtual one, unless a session of another node
// has the same: then it returns false.
func (t *keyTable) rename(s *session, l *lease) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid := l.conn.PID
	if t.mu.sessions[pid] != nil {
		return false
	}
	delete(t.mu.sessions, s.pid.Load())
	s.pid.Store(pid)
	t.mu.sessions[pid] = s
	t.holderOf(s, l).Store(pid)
	return true
}

// holderOf is the note of who holds a lease. The lock is held.
func (t *keyTable) holderOf(s *session, l *lease) *holding {
	key := backend{s.cluster.Name, l.node.ID, l.conn.PID}
	if l.holder = t.mu.backends[key]; l.holder == nil {
		l.holder = new(holding)
		t.mu.backends[key] = l.holder
	}
	return l.holder
}

// unregister forgets the session; it may have been forgotten before.
func (t *keyTable) unregister(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pid := s.pid.Load(); t.mu.sessions[pid] == s {
		delete(t.mu.sessions, pid)
	}
}

// attach records that the session holds a lease.
func (t *keyTable) attach(s *session, l *lease) {
	if l.holder == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.holderOf(s, l)
	}
	l.holder.Store(s.pid.Load())
}

// detach records that it does not any more. After it returns no cancel for the session is under way to
// the lease.
func (t *keyTable) detach(s *session, l *lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.holder = nil
	delete(t.mu.backends, backend{s.cluster.Name, l.node.ID, l.conn.PID})
}

// forget records that a backend is gone.
func (t *keyTable) forget(b backend) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.backends, b)
}

// virtual is the pid of the session that has sent a notification over a backend, 0 when it is not known or has ended.
func (t *keyTable) virtual(cluster string, node int, pid uint32) uint32 {
	t.mu.Lock()
	held := t.mu.backends[backend{cluster, node, pid}]
	t.mu.Unlock()
	if held == nil {
		return 0
	}
	speaker := held.speaker(health.Clock())
	if t.session(speaker) == nil {
		return 0
	}
	return speaker
}

// session is the session of a pid, nil when there is none.
func (t *keyTable) session(pid uint32) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.sessions[pid]
}

// holder is the session that holds a backend or held it last, nil when it has ended.
func (t *keyTable) holder(cluster string, node int, pid uint32) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.mu.backends[backend{cluster, node, pid}]
	if held == nil {
		return nil
	}
	return t.mu.sessions[held.Load()]
}

// connected says whether a session has come to a database of a cluster.
func (t *keyTable) connected(cluster *Cluster, database string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.mu.sessions {
		if s.cluster == cluster && s.target.Database == database {
			return true
		}
	}
	return false
}

// count is how many sessions and clients of the console there are.
func (t *keyTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.sessions) + len(t.mu.consoles)
}

// running is every lease on which a statement runs now.
func (t *keyTable) running() []*lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*lease
	for _, s := range t.mu.sessions {
		if l := s.running.Load(); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// find is the session that a cancel key belongs to, nil when it is nobody's.
func (t *keyTable) find(pid uint32, secret []byte) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.mu.sessions[pid]
	if s == nil || subtle.ConstantTimeCompare(s.secret, secret) != 1 {
		return nil
	}
	return s
}

// cancelHere carries out a cancel request whose key is that of a client of this process, and says whether it is. It
// returns when the node has taken note.
func (srv *Server) cancelHere(ctx context.Context, pid uint32, secret []byte) bool {
	s := srv.keys.find(pid, secret)
	if s == nil {
		cs := srv.keys.findConsole(pid, secret)
		if cs != nil {
			cs.canceled()
		}
		return cs != nil
	}
	srv.cancelRunning(ctx, s)
	return true
}

// randomProcess is a process number where none is configured.
func randomProcess() int {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return int(binary.BigEndian.Uint32(b[:]) % (maxProcess + 1))
}
