package proxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
)

// TestNamesShare: clients with different names share one connection, log in nowhere for it, and each has its name there.
func TestNamesShare(t *testing.T) {
	for _, pool := range []string{"transaction", "session"} {
		t.Run(pool, func(t *testing.T) {
			r := newRig(t, alone, pooled(1), withTarget(func(x *Target) { x.Pooled = pool == "transaction" }))
			for i, params := range [][]string{
				{"application_name", "one"},
				{"application_name", "two"},
				{"APPLICATION_NAME", "it's"},
				{"options", "-c application-name=three"},
				{"options", `--application_name=a\ b`},
				{"options", "-c application_name=four", "application_name", `back\slash`},
				{},
			} {
				c := r.client(params...)
				want := []string{"one", "two", "it's", "three", "a b", `back\slash`, ""}[i]
				equal(t, "told", c.Status["application_name"], want)
				c.query("INSERT INTO t VALUES (1)")
				b := r.p().last()
				if want == `back\slash` {
					want = `E'back\\slash` // the node is none that reads constants
				}
				equal(t, "in force", b.guc.get("application_name"), want)
				equal(t, "the node's login", b.Param("application_name")+b.Param("options"), "")
				must(t, c.Close())
				await(t, "the client's end", func() bool { return r.srv.keys.count() == 0 })
			}
			equal(t, "connections", r.p().Accepted(), 1)
		})
	}
}

// TestNamesBase: one base serves logins with all names, and of plain ones no node is asked.
func TestNamesBase(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	r.client("application_name", "first")
	r.forgetAll()
	for i := range 5 {
		name := fmt.Sprintf("name %d", i)
		equal(t, "told", r.client("application_name", name).Status["application_name"], name)
	}
	equal(t, "asked", r.p().got(), "")
	equal(t, "logins", r.p().Accepted(), 1)
	r.srv.bases.mu.Lock()
	defer r.srv.bases.mu.Unlock()
	equal(t, "bases", len(r.srv.bases.mu.m), 1)
}

// TestNamesOfLease: what a login learns of a node is not what the session before it has left on the connection.
func TestNamesOfLease(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	c := r.client("application_name", "first")
	c.query("SET work_mem TO '9MB'")
	c.query("INSERT INTO t VALUES (1)")
	r.srv.bases.drop("main")
	r.forgetAll()
	equal(t, "told", r.client().Status["application_name"], "")
	if got := r.p().got(); !strings.HasPrefix(got, `Q RESET "application_name"; RESET "work_mem" | Q SELECT pg_catalog.current_setting`) {
		t.Error(got)
	}
}

// TestNamesOdd: of a name that nodes do not keep as it is one is asked, without its login; it is in force as the node has it. Where
// a node does not take it in SQL, its login carries it.
func TestNamesOdd(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct{ name, ask, set string }{
		{"müller", `E'm\303\274ller'`, `E'm\303\274ller'`},
		{"a\tb'\\", `E'a\011b''\\'`, `E'a\011b''\\'`},
		{long, "E'" + long + "'", "'" + long[:63] + "'"},
		{strings.Repeat("ü", 40), `E'` + strings.Repeat(`\303\274`, 40) + `'`, `E'` + strings.Repeat(`\303\274`, 31) + `'`},
	} {
		r := newRig(t, alone, pooled(1))
		r.client()
		asked := fmt.Sprintf("SELECT pg_catalog.set_config('application_name', %s, true), pg_catalog.set_config('application_name', %s, true)", c.ask, c.set)
		r.p().on(asked, func(b *backendPG) error {
			b.say(pgtest.Notice("NOTICE", "42622", "will be truncated"), pgtest.RowDescription("a", "b"), pgtest.DataRow("m??ller", "m??ller"), pgtest.CommandComplete("SELECT 1"))
			return nil
		})
		r.p().on(`SET "application_name" TO `+c.set, func(b *backendPG) error {
			b.guc.put("application_name", "m??ller")
			b.say(pgtest.CommandComplete("SET"))
			return nil
		})
		raw, err := pgtest.Dial(pgtest.ClientConfig{Addr: r.addr, User: "alice", Database: "app", Password: "secret", Params: []string{"application_name", c.name}})
		must(t, err)
		t.Cleanup(func() { _ = raw.Close() })
		heard, err := raw.Login()
		must(t, err)
		cl := &client{RawClient: raw, t: t, r: r}
		equal(t, "asked", r.p().ran(asked), 1)
		equal(t, "told", cl.Status["application_name"], "m??ller")
		equal(t, "notices", strings.Count(short(heard), "N(NOTICE 42622) S("), 1)
		r.forgetAll()
		cl.query("INSERT INTO t VALUES (1)")
		equal(t, "set", r.p().got(), fmt.Sprintf(`Q SET "application_name" TO %s | Q INSERT INTO t VALUES (1)`, c.set))
		equal(t, "shown", r.applications(), "m??ller")
		equal(t, "logins", r.p().Accepted(), 1)
	}
	r := newRig(t, alone, pooled(1))
	bad := "m\xfcller"
	r.p().on(`SELECT pg_catalog.set_config('application_name', E'm\374ller', true), pg_catalog.set_config('application_name', E'm\374ller', true)`,
		func(b *backendPG) error { return b.error("22021", "invalid byte sequence") })
	cl := r.client("application_name", bad)
	equal(t, "the node's login", r.p().last().Param("application_name"), bad)
	equal(t, "told", cl.Status["application_name"], bad)
	r.forgetAll()
	cl.query("INSERT INTO t VALUES (1)")
	equal(t, "nothing is set", r.p().got(), "Q INSERT INTO t VALUES (1)")
}

// TestNamesLoginDies: a pooled connection that has died is no reason for a login to fail.
func TestNamesLoginDies(t *testing.T) {
	r := newRig(t, alone, pooled(1))
	c := r.client("application_name", "first")
	c.query("INSERT INTO t VALUES (1)")
	r.srv.bases.drop("main")
	r.p().on(`RESET "application_name"`, func(b *backendPG) error {
		r.p().on(`RESET "application_name"`, nil)
		return b.die()
	})
	equal(t, "told", r.client("application_name", "second").Status["application_name"], "second")
	equal(t, "connections", r.p().Accepted(), 2)
}

// TestNamesTunnel: a replication connection's name is its node login's: synchronous_standby_names may speak of it.
func TestNamesTunnel(t *testing.T) {
	r := newRig(t, alone, withTarget(func(x *Target) { x.AddHost = AddHostPort }))
	c := r.client("replication", "true", "application_name", "walreceiver")
	equal(t, "the node's login", r.p().last().Param("application_name"), "walreceiver")
	equal(t, "told", c.Status["application_name"], "walreceiver")
}

// applications is what can be seen of the names of all sessions.
func (r *rig) applications() string {
	out := ""
	for _, v := range r.srv.Clients() {
		out += v.Application
	}
	return out
}

// nameScripts is what clients do to their name, one string after the other.
func nameScripts() [][]string {
	return [][]string{
		{"SET application_name TO 'x'", "RESET application_name", "RESET application_name"},
		{"SET application_name TO ''", "RESET application_name", "SET application_name TO ''", "RESET ALL"},
		{"SET application_name TO 'x'", "DISCARD ALL", "SET application_name TO 'y'", "SET application_name TO DEFAULT"},
		{"SET application_name TO ''", "BEGIN; RESET application_name; COMMIT; SELECT 1/0", "RESET ALL; BEGIN; SET application_name TO 'x'; SELECT 1/0", "ROLLBACK", "SELECT 1"},
		{"SET application_name TO 'x'; RESET application_name", "RESET application_name; SET application_name TO 'x'", "RESET ALL; SELECT 1/0", "RESET ALL"},
		{"BEGIN", "SET application_name TO 'x'", "ROLLBACK", "BEGIN", "RESET application_name", "SET application_name TO 'x'", "COMMIT", "RESET ALL"},
		{"BEGIN", "RESET application_name", "ROLLBACK", "SET application_name TO ''", "BEGIN", "RESET ALL", "SELECT 1/0", "ROLLBACK"},
		{"SET application_name TO ''", "BEGIN; RESET application_name; ROLLBACK", "BEGIN; RESET application_name", "COMMIT", "SELECT 1"},
		{"BEGIN; RESET application_name", "SET application_name TO ''", "COMMIT", "RESET ALL", "SET datestyle TO 'German, DMY'; SET application_name TO 'z'", "RESET ALL"},
	}
}

// TestNamesReset: what a client hears of its name is what it hears from a node that it logged in to itself, and what the
// node has in force is what the client believes.
func TestNamesReset(t *testing.T) {
	words := []string{
		"SET application_name TO 'x'", "SET application_name TO ''", "SET application_name TO 'app'", "RESET application_name", "RESET ALL", "DISCARD ALL",
		"BEGIN", "COMMIT", "ROLLBACK", "SELECT 1/0", "SELECT 1", "INSERT INTO t VALUES (1)", "SET application_name TO DEFAULT", "SET datestyle TO 'German, DMY'",
		"BEGIN; RESET application_name", "RESET ALL; SET application_name TO ''", "RESET ALL; SELECT 1/0", "BEGIN; SET application_name TO 'y'; ROLLBACK",
		"SET application_name TO ''; RESET application_name", "BEGIN; RESET ALL; COMMIT; SELECT 1/0",
	}
	scripts := nameScripts()
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var s []string
		for range 25 {
			s = append(s, words[random.IntN(len(words))])
		}
		scripts = append(scripts, s)
	}
	for _, own := range []string{"app", ""} {
		for _, isPooled := range []bool{true, false} {
			for _, protocol := range []string{"simple", "extended"} {
				t.Run(fmt.Sprintf("%q %v %s", own, isPooled, protocol), func(t *testing.T) {
					r := newRig(t, alone, pooled(2), withTarget(func(x *Target) { x.Pooled, x.BeginDefer = isPooled, 0 }))
					for _, script := range scripts {
						c := r.client("application_name", own)
						raw, err := pgtest.Connect(pgtest.ClientConfig{Addr: r.p().Addr(), User: "alice", Database: "app", Password: "secret", Params: []string{"application_name", own}})
						must(t, err)
						d := &client{RawClient: raw, t: t, r: r}
						equal(t, "at login", c.Status["application_name"], d.Status["application_name"])
						for i, sql := range script {
							p := protocol
							if strings.Contains(sql, ";") {
								p = "simple"
							}
							want := strings.ReplaceAll(d.runs(p, sql), "standby-a", "primary")
							if got := c.runs(p, sql); got != want {
								t.Fatalf("%q: statement %d\n got  %s\n want %s", script, i+1, got, want)
							}
						}
						must(t, c.Close())
						must(t, d.Close())
					}
				})
			}
		}
	}
}

// TestNamesInForce: the name is there before a client's first statement on a connection, on either node, behind a deferred BEGIN,
// and within the transaction in which it was reset.
func TestNamesInForce(t *testing.T) {
	r := newRig(t, withoutB, pooled(1))
	c := r.client("application_name", "app")
	r.forgetAll()
	c.query("SELECT 1")
	equal(t, "on a standby", r.a().got(), `Q SET "application_name" TO 'app' | Q SELECT 1`)
	c.query("BEGIN")
	c.query("INSERT INTO t VALUES (1)")
	equal(t, "ahead of BEGIN", r.p().got(), `Q SET "application_name" TO 'app' | Q BEGIN | Q INSERT INTO t VALUES (1)`)
	c.query("RESET application_name")
	equal(t, "told nothing new", c.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(T)")
	equal(t, "in force", r.p().last().guc.get("application_name"), "app")
	c.query("COMMIT")
	c.query("RESET ALL")
	r.forgetAll()
	c.query("INSERT INTO t VALUES (3)")
	equal(t, "behind RESET ALL", r.p().got(), `Q SET "application_name" TO 'app' | Q INSERT INTO t VALUES (3)`)
	c.query("SET application_name TO 'x'")
	c.query("BEGIN")
	c.query("INSERT INTO t VALUES (4)")
	c.query("SET LOCAL application_name TO DEFAULT")
	equal(t, "told", c.query("INSERT INTO t VALUES (5)"), "C(INSERT 0 1) Z(T)")
	equal(t, "local", r.p().last().guc.get("application_name"), "app")
	r.forgetAll()
	c.query("COMMIT")
	c.query("INSERT INTO t VALUES (6)")
	equal(t, "what was there before", r.p().got(), `Q COMMIT | Q INSERT INTO t VALUES (6)`)
}

// TestNamesShared: sessions of the same name share what they start with, and names that clients make up are not remembered for ever.
func TestNamesShared(t *testing.T) {
	var n names
	if a, b := n.of("'a'"), n.of("'b'"); a == b || n.of("'a'") != a {
		t.Error("not shared")
	}
	for i := range 5 * maxNames {
		n.of(fmt.Sprint(i))
	}
	if len(n.mu.m) > maxNames {
		t.Errorf("%d are remembered", len(n.mu.m))
	}
}

// TestNamesWhence: where a client on a Unix socket is, and one of IPv6.
func TestNamesWhence(t *testing.T) {
	for network, want := range map[string]string{"unix": "unix unix", "tcp6": "::1 [::1]:"} {
		address := map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp6": "[::1]:0"}[network]
		l, err := net.Listen(network, address)
		if err != nil && network == "tcp6" {
			continue // a machine without it
		}
		must(t, err)
		dialed, err := net.Dial(network, l.Addr().String())
		must(t, err)
		conn, err := l.Accept()
		must(t, err)
		s := &session{client: pgwire.NewLink(conn), target: new(Target)}
		s.target.AddHost = AddHostOnly
		got := s.whence()
		s.target.AddHost = AddHostPort
		if got += " " + s.whence(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", network, got)
		}
		_, _, _ = l.Close(), conn.Close(), dialed.Close()
	}
}

// TestNamesAddHost: what application_name_add_host adds is what the client is told, what its nodes have, and what RESET goes back to.
func TestNamesAddHost(t *testing.T) {
	for _, c := range []struct {
		add          AddHost
		params       []string
		before, want string
	}{
		{AddHostOnly, []string{"application_name", "app"}, "", "app - 127.0.0.1"},
		{AddHostPort, []string{"application_name", "app"}, "", "app - 127.0.0.1:%s"},
		{AddHostOnly, nil, "", "app - 127.0.0.1"},
		{AddHostOnly, []string{"application_name", ""}, "", "app - 127.0.0.1"},
		{AddHostOnly, nil, "of the role", "of the role - 127.0.0.1"},
		{AddHostOnly, []string{"application_name", strings.Repeat("n", 80)}, "", strings.Repeat("n", 51) + " - 127.0.0.1"},
		{AddNothing, nil, "of the role", "of the role"},
	} {
		r := newRig(t, alone, pooled(1), withTarget(func(x *Target) { x.AddHost = c.add }))
		r.p().onStartup(func(b *backendPG) error {
			b.Status[0][1] = c.before
			return nil
		})
		cl := r.client(c.params...)
		want := c.want
		if c.add == AddHostPort {
			_, port, err := net.SplitHostPort(cl.Conn().LocalAddr().String())
			must(t, err)
			want = fmt.Sprintf(want, port)
		}
		equal(t, "told", cl.Status["application_name"], want)
		equal(t, "shown", r.applications(), want)
		cl.query("INSERT INTO t VALUES (1)")
		equal(t, "in force", r.p().last().guc.get("application_name"), want)
		equal(t, "set", cl.query("SET application_name TO 'x'"), "C(SET) S(application_name=x) Z(I)")
		equal(t, "shown then", r.applications(), "x")
		equal(t, "reset", cl.query("RESET application_name"), "C(RESET) S(application_name="+want+") Z(I)")
	}
}
