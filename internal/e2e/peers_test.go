package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// balancer passes connections on to several addresses, one after the other, until the test ends. It knows nothing of what is said.
func balancer(t testing.TB, to []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { relayed(ctx, in, to[i%len(to)]) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		stop()
		wg.Wait()
	})
	return l.Addr().String()
}

// relayed copies both ways between a connection and an address until both sides have ended, or ctx has.
func relayed(ctx context.Context, in net.Conn, addr string) {
	defer in.Close()
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })()
	var wg sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
	}
	wg.Go(func() { oneWay(out, in) })
	oneWay(in, out)
	wg.Wait()
}

// peering is the configuration of a process among others, by number.
func peering(own int, addrs map[int]string) string {
	var list []string
	for n, addr := range addrs {
		if n != own {
			list = append(list, fmt.Sprintf("{process: %d, address: %q}", n, addr))
		}
	}
	return fmt.Sprintf("process: %d\npeers: [%s]\n", own, strings.Join(list, ", "))
}

// startPeers runs processes numbered from 1 that know each other, and returns them and the address of a balancer before them.
func startPeers(t testing.TB, cl *localpg.Cluster, n int, extra string) ([]*Proxy, string) {
	t.Helper()
	addrs := map[int]string{}
	for i := range n {
		addrs[i+1] = freeAddr(t)
	}
	var all []*Proxy
	var list []string
	for i := range n {
		all = append(all, StartProxy(t, cl, proxyConfig{Addr: addrs[i+1], Extra: peering(i+1, addrs) + extra, NoAuth: i > 0}))
		list = append(list, addrs[i+1])
	}
	return all, balancer(t, list)
}

// cancelsOf is how many cancel requests of a source had a result, over some processes.
func cancelsOf(t testing.TB, source, result string, of ...*Proxy) int {
	t.Helper()
	line := regexp.MustCompile(fmt.Sprintf(`(?m)^pgweir_cancel_requests_total\{result="%s",source="%s"\} (\d+)$`, result, source))
	sum := 0
	for _, p := range of {
		m := line.FindSubmatch(metrics(t, p))
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(string(m[1]))
		must(t, err)
		sum += n
	}
	return sum
}

// sleepers tells who sleeps in pg_sleep on any node. It asks the nodes.
type sleepers struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // by what stands in the statement's comment
}

// watchSleepers looks at all nodes until the test ends.
func watchSleepers(t testing.TB, cl *localpg.Cluster) *sleepers {
	t.Helper()
	w := &sleepers{waiting: map[string]chan struct{}{}}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, n := range cl.Nodes {
		c, err := pgx.Connect(ctx, n.DSN("postgres"))
		must(t, err)
		wg.Go(func() {
			defer c.Close(context.Background())
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				rows, err := c.Query(ctx, `SELECT substring(query FROM 'sleeper ([0-9.a-z]+)') FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%/* sleeper %'`)
				if err == nil {
					var names []string
					if names, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
						w.asleep(names)
					}
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("asking a node who sleeps: %v", err)
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	return w
}

// asleep tells those who wait for one of the names.
func (w *sleepers) asleep(names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		if ch := w.waiting[name]; ch != nil {
			close(ch)
			delete(w.waiting, name)
		}
	}
}

// expect returns a channel that is closed when the sleeper of that name is seen.
func (w *sleepers) expect(name string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{})
	w.waiting[name] = ch
	return ch
}

// sleep sends a statement that sleeps for as long as nobody cancels it, in the way that kind chooses, and returns when it sleeps.
func (w *sleepers) sleep(c *pgtest.RawClient, kind int, name string) error {
	sql := fmt.Sprintf("SELECT pg_sleep(120) /* sleeper %s */", name)
	began := w.expect(name)
	var err error
	switch kind % 4 {
	case 0:
		err = c.Send(pgtest.Query(sql))
	case 1:
		err = c.Send(pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.Execute("", 0), pgtest.Sync())
	case 2:
		if _, err = c.Query("BEGIN"); err == nil {
			err = c.Send(pgtest.Query(sql))
		}
	case 3:
		err = c.Send(pgtest.Query("/* pgweir: primary */ " + sql))
	}
	if err != nil {
		return err
	}
	select {
	case <-began:
		return nil
	case <-time.After(60 * time.Second):
		return fmt.Errorf("sleeper %s does not run", name)
	}
}

// hit reads the end of a statement that was cancelled, and sees that the next one runs.
func hit(c *pgtest.RawClient, kind int, name string) error {
	ms, err := c.ReadUntilReady(1)
	if err != nil {
		return err
	}
	if e := pgtest.FirstError(ms); e == nil || e.Field('C') != "57014" {
		return fmt.Errorf("sleeper %s was not cancelled: %v", name, e)
	}
	if kind%4 == 2 {
		if err := answers(c, "ROLLBACK", ""); err != nil {
			return err
		}
	}
	return answers(c, "SELECT 'after "+name+"'", "after "+name)
}

// answers fails unless a statement has that answer.
func answers(c *pgtest.RawClient, sql, want string) error {
	ms, err := c.Query(sql)
	if err != nil {
		return err
	}
	if e := pgtest.FirstError(ms); e != nil {
		return fmt.Errorf("%s: %w", sql, e)
	}
	if got := strings.Join(flat(pgtest.Rows(ms)), " "); got != want {
		return fmt.Errorf("%s: %q, want %q", sql, got, want)
	}
	return nil
}

// flat is rows as one list.
func flat(rows [][]string) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r...)
	}
	return out
}

// cancelCount is how many cancel requests TestPeers sends: CANCELS, or 150.
func cancelCount(t *testing.T) int {
	v := os.Getenv("CANCELS")
	if v == "" {
		return 150
	}
	n, err := strconv.Atoi(v)
	must(t, err)
	return n
}

// TestPeers: three processes behind a balancer that sends every connection to the next one. Cancel requests of many clients, over
// few connections to the nodes, each hit the statement that they are for; statements that nobody cancels, of the same clients and of others, all
// end well; forged keys of those others reach nothing.
func TestPeers(t *testing.T) {
	const clients, bystanders = 30, 9
	count := cancelCount(t)
	cl := sharedCluster(t)
	all, addr := startPeers(t, cl, 3, "pool_size: 6\nquery_wait_notify: 0\n")
	watch := watchSleepers(t, cl)
	var wg, others sync.WaitGroup
	var next, late, undisturbed, forged atomic.Int64
	over := make(chan struct{})
	began := time.Now()
	for range clients {
		c := client(t, addr, appUser, appPassword, appDatabase)
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > count {
					return
				}
				name := fmt.Sprint(i)
				err := watch.sleep(c, i, name)
				if err == nil {
					err = c.Cancel()
				}
				if err == nil {
					err = hit(c, i, name)
				}
				if err == nil && i%5 == 0 { // one that comes when the statement is over
					late.Add(1)
					if err = c.Cancel(); err == nil {
						err = answers(c, "SELECT 'again "+name+"'", "again "+name)
					}
				}
				if err != nil {
					t.Errorf("cancel %d: %v", i, err)
					return
				}
			}
		})
	}
	for range bystanders {
		c := client(t, addr, appUser, appPassword, appDatabase)
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				sql, want := fmt.Sprintf("SELECT %d FROM pg_sleep(0.002)", i), fmt.Sprint(i)
				err := answers(c, sql, want)
				if err == nil && i%4 == 0 {
					for _, sql := range []string{"BEGIN", "SELECT txid_current() > 0", "COMMIT"} {
						if err == nil {
							err = answers(c, sql, map[bool]string{true: "t"}[strings.HasPrefix(sql, "SELECT")])
						}
					}
				}
				if err == nil && i%8 == 0 {
					forged.Add(1)
					err = pgtest.CancelAt(addr, c.PID, []byte{byte(i), 2, 3, 4}, 30*time.Second)
				}
				if err != nil {
					t.Errorf("who is not cancelled: %v", err)
					return
				}
				undisturbed.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	close(over)
	others.Wait()
	if t.Failed() {
		return
	}
	found, forwarded := cancelsOf(t, "client", "found", all...), cancelsOf(t, "client", "forwarded", all...)
	there, nobody := cancelsOf(t, "peer", "found", all...), cancelsOf(t, "peer", "unknown", all...)
	t.Logf("%d cancels in %v, all hit, and %d that came late; %d statements that nobody cancelled, and %d forged keys; %d keys were known where they came, %d passed on to who knew them",
		count, took.Round(time.Millisecond), late.Load(), undisturbed.Load(), forged.Load(), found, there)
	if found+there != count+int(late.Load()) {
		t.Errorf("%d keys known at once and %d after passing on, want %d in all", found, there, count+int(late.Load()))
	}
	if there+nobody != forwarded {
		t.Errorf("%d requests were passed on, and %d came", forwarded, there+nobody)
	}
	if unknown := cancelsOf(t, "client", "unknown", all...); unknown+nobody != int(forged.Load()) {
		t.Errorf("%d unknown keys, %d were forged", unknown+nobody, forged.Load())
	}
	if there < count/3 || undisturbed.Load() < bystanders {
		t.Errorf("that tells nothing: %d passed on, %d statements that nobody cancelled", there, undisturbed.Load())
	}
	for source, results := range map[string][]string{"client": {"failed"}, "peer": {"misdirected", "forwarded"}} {
		for _, result := range results {
			if n := cancelsOf(t, source, result, all...); n != 0 {
				t.Errorf("%d requests of a %s ended as %s", n, source, result)
			}
		}
	}
}

// TestPeersWaiting: a statement that waits for a connection of a full pool is cancelled there, whichever process the request
// comes to, and never runs.
func TestPeersWaiting(t *testing.T) {
	cl := sharedCluster(t)
	must(t, cl.Exec(t.Context(), appDatabase, "CREATE TABLE peers_waiting (v int); GRANT ALL ON peers_waiting TO "+appUser))
	must(t, cl.WaitReplayed(t.Context()))
	all, addr := startPeers(t, cl, 2, "pool_size: 1\n")
	home := all[1]
	holder, waiter := home.Client(t), home.Client(t)
	t.Cleanup(func() { must(t, cl.Exec(context.Background(), appDatabase, "DROP TABLE peers_waiting")) })
	for i, at := range []string{all[0].Addr, all[1].Addr, addr, addr} {
		ask(t, holder, "BEGIN")
		ask(t, holder, "INSERT INTO peers_waiting VALUES (0)")
		must(t, waiter.Send(pgtest.Query(fmt.Sprintf("INSERT INTO peers_waiting VALUES (%d)", i+1))))
		eventually(t, 20*time.Second, func() error {
			if !regexp.MustCompile(`(?m)^pgweir_pool_waiting\{.*\} 1$`).Match(metrics(t, home)) {
				return fmt.Errorf("nobody waits")
			}
			return nil
		})
		must(t, pgtest.CancelAt(at, waiter.PID, []byte{0, 0, 0, 0}, 30*time.Second)) // nobody's
		must(t, pgtest.CancelAt(at, waiter.PID, waiter.Secret, 30*time.Second))
		ms, err := waiter.ReadUntilReady(1)
		must(t, err)
		if e := pgtest.FirstError(ms); e == nil || e.Field('C') != "57014" {
			t.Errorf("cancelled at %s: %v", at, e)
		}
		ask(t, holder, "COMMIT")
		if n := ask(t, waiter, "/* pgweir: primary */ SELECT count(*) FROM peers_waiting WHERE v > 0"); n != "0" {
			t.Errorf("%s statements ran that were cancelled before", n)
		}
	}
}

// forgedPID is a pid of the process with that number.
func forgedPID(process int) uint32 { return uint32(process+1)<<22 | uint32(rand.IntN(1<<22)) }

// TestPeersForged: forged and foreign keys reach nothing. One that names a peer is passed on once; one that names no peer, or no process at
// all, or that says that it was passed on already, is not. A peer that a reload adds is known from then on.
func TestPeersForged(t *testing.T) {
	cl := sharedCluster(t)
	fake := pgtest.NewFakeNode(t, (*pgtest.FakeConn).Startup)
	addrs := map[int]string{1: freeAddr(t), 2: freeAddr(t)}
	boss := map[string]string{superUser: "admin"}
	cfg := func(n int) proxyConfig {
		return proxyConfig{Clusters: map[string]*localpg.Cluster{"main": cl}, Console: boss, Addr: addrs[n], Extra: peering(n, addrs)}
	}
	one, two := StartProxy(t, cl, cfg(1)), StartProxy(t, cl, cfg(2))
	addr := balancer(t, []string{one.Addr, two.Addr})
	watch := watchSleepers(t, cl)
	victims := []*pgtest.RawClient{one.Client(t), two.Client(t)}
	for i, c := range victims {
		must(t, watch.sleep(c, i, fmt.Sprint("victim", i)))
	}
	attack := func(pids ...uint32) {
		for _, pid := range pids {
			for _, size := range []int{1, 4, 32, 256} {
				secret := make([]byte, size)
				for i := range secret {
					secret[i] = byte(rand.Uint32())
				}
				must(t, pgtest.CancelAt(addr, pid, secret, 30*time.Second))
				must(t, pgtest.CancelAt(addr, pid, secret, 30*time.Second)) // at the other process
			}
		}
	}
	const requests = 2 * 4 // of attack, for each pid
	attack(victims[0].PID, victims[1].PID)
	if n := cancelsOf(t, "client", "forwarded", one, two); n != requests || cancelsOf(t, "peer", "unknown", one, two) != n {
		t.Errorf("%d forged keys of a session were passed on, want the %d that came to the wrong process", n, requests)
	}
	attack(forgedPID(3), forgedPID(9), forgedPID(300), 4711, 0, victims[0].PID|1<<31, forgedPID(3)|1<<31)
	if n := cancelsOf(t, "client", "forwarded", one, two); n != requests {
		t.Errorf("%d keys that name no peer were passed on", n-requests)
	}
	for i, p := range []*Proxy{one, two} {
		more := map[int]string{1: addrs[1], 2: addrs[2], 3: fake.Addr()}
		c := cfg(i + 1)
		c.Extra = peering(i+1, more)
		must(t, os.WriteFile(filepath.Join(p.dir, "pgweir.yaml"), []byte(p.yaml(c)), 0o600))
		must(t, p.cmd.Process.Signal(syscall.SIGHUP))
		eventually(t, 20*time.Second, func() error {
			if !strings.Contains(string(metrics(t, p)), `pgweir_config_reloads_total{result="ok"} 1`) {
				return fmt.Errorf("not reloaded yet")
			}
			return nil
		})
	}
	listed := table(t, client(t, two.Addr, superUser, superPassword, "pgweir"), "SHOW PEERS")
	if r := find(t, listed, "peer_id", "3"); len(listed) != 2 || r["host"]+":"+r["port"] != fake.Addr() {
		t.Errorf("SHOW PEERS: %v", listed)
	}
	attack(forgedPID(3))
	if n := fake.Accepted(); n != requests || len(fake.Cancels) != n {
		t.Errorf("the peer got %d connections and %d requests, want %d", n, len(fake.Cancels), requests)
	}
	for range len(fake.Cancels) {
		if got := <-fake.Cancels; got.PID>>22 != 1<<9|4 {
			t.Errorf("pid %#x, want one of process 3 with the highest bit", got.PID)
		}
	}
	attack(forgedPID(3) | 1<<31)
	if n := fake.Accepted(); n != requests {
		t.Errorf("%d requests were passed on a second time", n-requests)
	}
	for i, c := range victims {
		must(t, pgtest.CancelAt(addr, c.PID, c.Secret, 30*time.Second))
		must(t, hit(c, i, fmt.Sprint("victim", i)))
	}
}

// TestPeersRealPID: with backend_pid: real a key names no process. A cancel request hits the statement at the process that has the session,
// and at another one nothing; it is passed on to nobody.
func TestPeersRealPID(t *testing.T) {
	cl := sharedCluster(t)
	all, _ := startPeers(t, cl, 2, "pool_mode: session\nbackend_pid: real\n")
	watch := watchSleepers(t, cl)
	c := all[0].Client(t)
	if got := ask(t, c, "/* pgweir: primary */ SELECT pg_backend_pid()"); got != fmt.Sprint(c.PID) {
		t.Fatalf("pid %d, the server says %s", c.PID, got)
	}
	must(t, watch.sleep(c, 3, "real"))
	must(t, pgtest.CancelAt(all[1].Addr, c.PID, c.Secret, 30*time.Second))
	if n := cancelsOf(t, "client", "unknown", all[1]); n != 1 {
		t.Errorf("at the other process %d unknown keys", n)
	}
	for _, source := range []string{"client", "peer"} {
		for _, result := range []string{"found", "forwarded", "failed", "misdirected"} {
			if n := cancelsOf(t, source, result, all...); n != 0 {
				t.Errorf("%d requests of a %s ended as %s", n, source, result)
			}
		}
	}
	must(t, c.Cancel())
	must(t, hit(c, 3, "real"))
}

// TestReusePort: two processes listen on one port. Clients come to both, and cancel requests that come to the wrong one arrive.
func TestReusePort(t *testing.T) {
	cl := sharedCluster(t)
	shared, addrs := freeAddr(t), map[int]string{1: freeAddr(t), 2: freeAddr(t)}
	var all []*Proxy
	for n := range addrs {
		all = append(all, StartProxy(t, cl, proxyConfig{
			Addr: addrs[n], Listen: []string{fmt.Sprintf("{addr: %q, reuse_port: true}", shared)}, Extra: peering(n, addrs),
		}))
	}
	watch := watchSleepers(t, cl)
	seen := map[uint32]int{}
	for i := 0; i < 40 || len(seen) < 2; i++ {
		if i == 200 {
			t.Fatalf("all of %d clients came to one process: %v", i, seen)
		}
		c := client(t, shared, appUser, appPassword, appDatabase)
		seen[c.PID>>22]++
		name := fmt.Sprint("shared", i)
		must(t, watch.sleep(c, i, name))
		must(t, c.Cancel())
		must(t, hit(c, i, name))
		must(t, c.Close())
	}
	if n := cancelsOf(t, "client", "forwarded", all...); n == 0 || n != cancelsOf(t, "peer", "found", all...) {
		t.Errorf("%d requests were passed on, %d came", n, cancelsOf(t, "peer", "found", all...))
	}
}
