package proxy

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgweir/internal/pgtest"
	"pgweir/proxy/pool"
)

// peersBook is Config.Peer as a test fills it in.
type peersBook struct {
	t   testing.TB
	mu  sync.Mutex
	all map[int]Peer
}

// withPeers gives the server peers that the book's holder may add at any time.
func withPeers(t testing.TB) (*peersBook, rigOption) {
	b := &peersBook{t: t, all: map[int]Peer{}}
	return b, withConfig(func(c *Config) {
		c.Peer = func(process int) (Peer, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			p, ok := b.all[process]
			return p, ok
		}
	})
}

// add enters a process, which is spoken to in the clear.
func (b *peersBook) add(process int, addr string, timeout time.Duration) {
	b.t.Helper()
	plain, err := pool.NewTLS(pool.SSLDisable, pool.TLSFiles{})
	must(b.t, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[process] = Peer{Target: pool.Target{Addr: addr, TLS: plain}, Timeout: timeout}
}

// asProcess gives the server a number.
func asProcess(n int) rigOption { return withConfig(func(c *Config) { c.Process = n }) }

// pidOf is a pid that the process of that number may give out.
func pidOf(process int) uint32 { return uint32(processBase+process)<<pidBits | 5 }

// cancels is how many cancel requests of a source had each result, as "found=1 unknown=2" without the zeros.
func (r *rig) cancels(source string) string {
	var out []string
	for _, result := range []string{cancelFound, cancelForwarded, cancelFailed, cancelUnknown, cancelMisdirected} {
		if n := counter(r.cfg.Metrics.cancels.With(prometheus.Labels{"source": source, "result": result})); n > 0 {
			out = append(out, result+"="+strconv.Itoa(int(n)))
		}
	}
	return strings.Join(out, " ")
}

// TestForwardedOnce: a cancel request whose key names another process is passed on to that process once, with the mark; one
// that has the mark, or names nobody, or this process, or a server process, is passed on to nobody.
func TestForwardedOnce(t *testing.T) {
	peer := pgtest.NewFakeNode(t, (*pgtest.FakeConn).Startup)
	long := []byte("32 bytes of a secret, as in 3.2.")
	for _, c := range []struct {
		name   string
		pid    uint32
		secret []byte
		passed bool
		result string // source and result
	}{
		{"a key of the peer", pidOf(8), []byte{1, 2, 3, 4}, true, "client forwarded=1"},
		{"a key of the peer, of protocol 3.2", pidOf(8), long, true, "client forwarded=1"},
		{"the longest key there is", pidOf(8), []byte(strings.Repeat("x", 256)), true, "client forwarded=1"},
		{"a key of the peer, passed on already", pidOf(8) | forwardedMark, long, false, "peer misdirected=1"},
		{"a key of a process that is no peer", pidOf(9), long, false, "client unknown=1"},
		{"… passed on already", pidOf(9) | forwardedMark, long, false, "peer misdirected=1"},
		{"a forged key of this process", pidOf(7), long, false, "client unknown=1"},
		{"… passed on already", pidOf(7) | forwardedMark, long, false, "peer unknown=1"},
		{"the pid of a server process", 4711, long, false, "client unknown=1"},
		{"the largest pid of a server process", 4_194_304, long, false, "client unknown=1"},
		{"a pid that no process gives out", pidOf(maxProcess + 1), long, false, "client unknown=1"},
		{"the largest pid", forwardedMark - 1, long, false, "client unknown=1"},
		{"no pid at all", 0, long, false, "client unknown=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			book, option := withPeers(t)
			book.add(8, peer.Addr(), 10*time.Second)
			book.add(maxProcess+1, peer.Addr(), 10*time.Second)
			book.add(-1, peer.Addr(), 10*time.Second)
			r := newRig(t, asProcess(7), option)
			before := peer.Accepted()
			must(t, pgtest.CancelAt(r.addr, c.pid, c.secret, 10*time.Second))
			source := strings.Fields(c.result)[0]
			await(t, "it is counted", func() bool { return r.cancels(source) != "" })
			equal(t, "counted", source+" "+r.cancels(source), c.result)
			if !c.passed {
				equal(t, "connections to the peer", peer.Accepted()-before, 0)
				return
			}
			equal(t, "connections to the peer", peer.Accepted()-before, 1)
			got := <-peer.Cancels
			equal(t, "pid", got.PID, c.pid|forwardedMark)
			equal(t, "secret", string(got.Secret), string(c.secret))
		})
	}
}

// TestPeersCancel: a cancel that comes to the wrong process reaches the statement that runs for its client at the other
// one, and only that; it has done so when the client's connection is closed.
func TestPeersCancel(t *testing.T) {
	bookA, optionA := withPeers(t)
	bookB, optionB := withPeers(t)
	a, b := newRig(t, alone, pooled(5), asProcess(7), optionA), newRig(t, alone, pooled(5), asProcess(8), optionB)
	bookA.add(8, b.addr, 10*time.Second)
	bookB.add(7, a.addr, 10*time.Second)
	for _, minor := range []uint16{0, 2} {
		c, other := b.connect(pgtest.ClientConfig{Minor: minor}), b.connect(pgtest.ClientConfig{Minor: minor})
		began, finish := make(chan *backendPG, 2), make(chan struct{})
		b.p().on("INSERT INTO t VALUES (1)", func(n *backendPG) error {
			done := cancelled(n)
			began <- n
			if err := n.StallUntil(done); err != nil {
				return err
			}
			return n.error("57014", "canceling statement due to user request")
		})
		b.p().on("INSERT INTO t VALUES (2)", func(n *backendPG) error {
			began <- n
			if err := n.StallUntil(finish); err != nil {
				return err
			}
			n.say(pgtest.CommandComplete("INSERT 0 1"))
			return nil
		})
		other.send(pgtest.Query("INSERT INTO t VALUES (2)"))
		<-began
		c.send(pgtest.Query("INSERT INTO t VALUES (1)"))
		runs := <-began
		must(t, pgtest.CancelAt(a.addr, c.PID, []byte{1, 2, 3, 4}, 10*time.Second))
		equal(t, "a forged secret", len(b.p().Cancels), 0)
		must(t, pgtest.CancelAt(a.addr, c.PID, c.Secret, 10*time.Second))
		equal(t, "cancelled", c.ready(1), "E(ERROR 57014) Z(I)")
		equal(t, "its process", b.p().cancelledPID(), runs.PID)
		// The client has the answer before the session is done with the statement; until then a cancel goes to its process.
		await(t, "the end of the statement", func() bool { return b.session(c).running.Load() == nil })
		must(t, pgtest.CancelAt(a.addr, c.PID, c.Secret, 10*time.Second))
		equal(t, "its next statement", c.query("INSERT INTO t VALUES (3)"), "C(INSERT 0 1) Z(I)")
		close(finish)
		equal(t, "the other's statement", other.ready(1), "C(INSERT 0 1) Z(I)")
		equal(t, "no more cancels", len(b.p().Cancels), 0)
	}
	equal(t, "at the one", a.cancels("client"), "forwarded=6")
	equal(t, "at the other", b.cancels("peer"), "found=4 unknown=2")
	equal(t, "nothing came back", a.cancels("peer")+b.cancels("client"), "")
}

// TestPeersInACircle: addresses that lead to the wrong process do not make a request go round.
func TestPeersInACircle(t *testing.T) {
	bookA, optionA := withPeers(t)
	bookB, optionB := withPeers(t)
	a, b := newRig(t, asProcess(7), optionA), newRig(t, asProcess(8), optionB)
	bookA.add(9, b.addr, 10*time.Second)
	bookB.add(9, a.addr, 10*time.Second)
	must(t, pgtest.CancelAt(a.addr, pidOf(9), []byte{1, 2, 3, 4}, 10*time.Second))
	await(t, "it is counted", func() bool { return a.cancels("client") != "" })
	equal(t, "at the first", a.cancels("client")+a.cancels("peer"), "forwarded=1")
	equal(t, "at the second", b.cancels("client")+b.cancels("peer"), "misdirected=1")
}

// TestPeerThatDoesNotAnswer: a peer that is stopped or gone costs a client its cancel and the time that a cancel may
// take, and this process no more than so many sockets.
func TestPeerThatDoesNotAnswer(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		book, option := withPeers(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		book.add(8, l.Addr().String(), 10*time.Second)
		must(t, l.Close())
		r := newRig(t, asProcess(7), option)
		must(t, pgtest.CancelAt(r.addr, pidOf(8), []byte{1, 2, 3, 4}, 10*time.Second))
		await(t, "it is counted", func() bool { return r.cancels("client") == "failed=1" })
	})
	t.Run("stopped", func(t *testing.T) {
		peer := pgtest.NewFakeNode(t, (*pgtest.FakeConn).Stall)
		book, option := withPeers(t)
		book.add(8, peer.Addr(), 30*time.Millisecond)
		r := newRig(t, asProcess(7), option)
		must(t, pgtest.CancelAt(r.addr, pidOf(8), []byte{1, 2, 3, 4}, 10*time.Second))
		await(t, "it is counted", func() bool { return r.cancels("client") == "failed=1" })
		equal(t, "connections to the peer", peer.Accepted(), 1)
	})
	t.Run("slow", func(t *testing.T) {
		const requests = MaxForwards + 30
		release := make(chan struct{})
		peer := pgtest.NewFakeNode(t, func(c *pgtest.FakeConn) error { return c.StallUntil(release) })
		book, option := withPeers(t)
		book.add(8, peer.Addr(), 10*time.Second)
		r := newRig(t, asProcess(7), option)
		var wg sync.WaitGroup
		for range requests {
			wg.Go(func() {
				if err := pgtest.CancelAt(r.addr, pidOf(8), []byte{1, 2, 3, 4}, 10*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		await(t, "the requests are here, and some at the peer", func() bool {
			return r.srv.Arriving() == requests && peer.Accepted() >= MaxForwards
		})
		equal(t, "clients are served", r.client().query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
		equal(t, "connections to the peer", peer.Accepted(), MaxForwards)
		close(release)
		wg.Wait()
		await(t, "all are counted", func() bool { return r.cancels("client") == fmt.Sprintf("forwarded=%d", requests) })
	})
}
