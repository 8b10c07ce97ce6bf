package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// introduced logs in and shows all that the server said about the name.
func introduced(t testing.TB, at target, user, password string, params ...string) (*pgtest.RawClient, []string) {
	t.Helper()
	c, err := pgtest.Dial(pgtest.ClientConfig{Addr: at.addr, User: user, Password: password, Database: at.database, Params: params, Timeout: 60 * time.Second, Check: secondOpinion()})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ms, err := c.Login()
	must(t, err)
	var out []string
	for _, m := range ms {
		if m.Type == 'N' || m.Type == 'S' && strings.HasPrefix(string(m.Body), "application_name\x00") {
			out = append(out, pgtest.Describe(m))
		}
	}
	return c, out
}

// withoutRows leaves out rows.
func withoutRows(ms []pgtest.Message) []pgtest.Message {
	return slices.DeleteFunc(ms, func(m pgtest.Message) bool { return m.Type == 'D' })
}

// statusSorted is DescribeAll with the parameters of one answer in order: that in which a server since version 16 reports several
// depends on the order in which they were changed.
func statusSorted(ms []pgtest.Message) []string {
	out := pgtest.DescribeAll(ms)
	for i := 0; i < len(ms); i++ {
		n := i
		for n < len(ms) && ms[n].Type == 'S' {
			n++
		}
		slices.Sort(out[i:n])
		i = max(i, n-1)
	}
	return out
}

// localDefault is a transaction in which the name is back for a while. It is no part of the random sessions: PostgreSQL's RESET ALL
// passes over a setting that is at its default, though another value waits for the end of the transaction.
func localDefault() []string {
	return []string{
		"SET application_name = ''", "BEGIN", "SET LOCAL application_name TO DEFAULT", "SHOW application_name", "SAVEPOINT s",
		"SET LOCAL application_name = 'x'", "SELECT set_config('application_name', NULL, true)", "SHOW application_name", "ROLLBACK TO s",
		"SHOW application_name", "COMMIT", "SHOW application_name", "RESET ALL", "SHOW application_name", "BEGIN",
		"SELECT set_config('application_name', NULL, true)", "SHOW application_name", "ROLLBACK",
		"BEGIN READ ONLY", "SHOW application_name", "SET application_name = 'x'", "RESET application_name", "SHOW application_name", "ROLLBACK",
	}
}

// nameWords is what the random sessions of TestApplicationName do.
func nameWords() []string {
	return []string{
		"SET application_name = 'x'", "SET application_name = ''", "SET application_name TO 'ünï'", "SET SESSION application_name = E'a\\tb'",
		"SET application_name TO DEFAULT", "RESET application_name", "RESET ALL", "DISCARD ALL", "SET LOCAL application_name = 'local'",
		"SELECT set_config('application_name', 'f', false)", "SELECT set_config('application_name', 'l', true)",
		"SELECT set_config('application_name', NULL, false)",
		"SELECT set_config('application_name', '', false)",
		"BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "SELECT 1/0",
		"SHOW application_name", "SHOW application_name", "SELECT current_setting('application_name')", "SELECT current_setting('application_name')",
		"/* pgweir: primary */ SELECT current_setting('application_name')", "SET DateStyle = 'German'",
		"BEGIN; RESET application_name", "RESET ALL; SET application_name = ''", "RESET ALL; SELECT 1/0", "BEGIN; SET application_name = 'y'; ROLLBACK",
		"SET application_name = ''; RESET application_name", "SET application_name = 'q'; SAVEPOINT s", "BEGIN; SET application_name = 'q'; SAVEPOINT s; RESET ALL",
		"RESET application_name; COMMIT", "BEGIN; RESET ALL; COMMIT; SELECT 1/0", "SET application_name = 'z'; COMMIT; RESET ALL; SELECT 1/0",
		"BEGIN; RESET application_name; COMMIT; BEGIN", "ROLLBACK AND CHAIN",
		"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
	}
}

// TestApplicationName holds that what a client is told of its name, and finds in force, is what it is told by a node that it
// logged in to itself, whatever it does to it; and that clients with different names share their connections.
func TestApplicationName(t *testing.T) {
	cl := sharedCluster(t)
	p := StartProxy(t, cl, proxyConfig{Extra: "default_pool_size: 2\ndatabases:\n  \"*\": {cluster: main}\n  kept: {dbname: " + appDatabase + ", pool_mode: session}\n" +
		"  hosts: {dbname: " + appDatabase + ", application_name_add_host: \"host:port\"}\n  narrow: {dbname: narrow}\n  narrowly: {dbname: narrow, pool_mode: session}\n"})
	primary, err := cl.Primary(t.Context())
	must(t, err)
	must(t, cl.Exec(t.Context(), "postgres", "CREATE DATABASE narrow ENCODING LATIN1 LOCALE 'C' TEMPLATE template0"))
	must(t, cl.Exec(t.Context(), "postgres", "CREATE ROLE named LOGIN PASSWORD 'named'; ALTER ROLE named SET application_name = 'of the role'"))
	t.Cleanup(func() {
		for _, sql := range []string{"DROP DATABASE narrow WITH (FORCE)", "DROP ROLE named"} {
			must(t, cl.Exec(context.Background(), "postgres", sql))
		}
	})
	must(t, cl.WaitReplayed(t.Context()))
	direct := fmt.Sprintf("127.0.0.1:%d", primary.Port())

	t.Run("at the login", func(t *testing.T) {
		for _, database := range []string{appDatabase, "kept", "narrow", "narrowly"} {
			straight := target{addr: direct, database: map[string]string{"kept": appDatabase, "narrowly": "narrow"}[database]}
			if straight.database == "" {
				straight.database = database
			}
			for _, params := range [][]string{
				{"application_name", "app"},
				{"application_name", "müller"},
				{"application_name", strings.Repeat("n", 100)},
				{"application_name", ""},
				{},
				{"application_name", strings.Repeat("ü", 40)},
				{"application_name", "a" + strings.Repeat("ü", 40)},
				{"application_name", "m\xfcller"},
				{"application_name", "it's\t\\b"},
				{"options", "-c application_name=a\\ b"},
				{"options", "-c application_name=a -c work_mem=3MB --application-name=b"},
				{"options", "-c application_name=a", "application_name", "b"},
				{"client_min_messages", "warning", "application_name", strings.Repeat("n", 100)},
				{"application_name", "ü", "client_encoding", "LATIN1"},
				{"APPLICATION_NAME", "upper"},
			} {
				for _, user := range []string{appUser, "named"} {
					password := map[string]string{appUser: appPassword, "named": "named"}[user]
					a, want := introduced(t, straight, user, password, params...)
					b, got := introduced(t, target{addr: p.Addr, database: database}, user, password, params...)
					for _, sql := range []string{"SELECT current_setting('application_name')", "SET application_name = 'x'", "RESET application_name", "/* pgweir: primary */ SELECT current_setting('application_name')"} {
						one, err := a.Query(sql)
						must(t, err)
						other, err := b.Query(sql)
						must(t, err)
						want, got = append(want, pgtest.DescribeAll(one)...), append(got, pgtest.DescribeAll(other)...)
					}
					if d := difference(want, got); d != "" {
						t.Errorf("%s as %s in %s: %s", params, user, database, d)
					}
					_, _ = a.Close(), b.Close()
				}
			}
		}
	})

	t.Run("later", func(t *testing.T) {
		random := rand.New(rand.NewPCG(7, 11))
		words := nameWords()
		for round := range 60 {
			at := target{addr: p.Addr, database: []string{appDatabase, "kept"}[round%2]}
			own := []string{"app", "", strings.Repeat("n", 80), "müller"}[round/2%4]
			a, want := introduced(t, target{addr: direct, database: appDatabase}, appUser, appPassword, "application_name", own)
			b, got := introduced(t, at, appUser, appPassword, "application_name", own)
			other, _ := introduced(t, at, appUser, appPassword, "application_name", "other")
			var did []string
			fixed := localDefault()
			for i := range 60 {
				sql := words[random.IntN(len(words))]
				if i < len(fixed) {
					sql = fixed[i]
				}
				did = append(did, sql)
				ms := []pgtest.Message{pgtest.Query(sql)}
				if random.IntN(2) == 0 && !strings.Contains(sql, ";") {
					ms = []pgtest.Message{pgtest.Parse("", sql), pgtest.Bind("", ""), pgtest.DescribePortal(""), pgtest.Execute("", 0), pgtest.Sync()}
				}
				one, err := a.Exchange(ms...)
				must(t, err)
				two, err := b.Exchange(ms...)
				must(t, err)
				if strings.Contains(sql, "NULL") {
					one, two = withoutRows(one), withoutRows(two) // the value that this call returns is the node's own default
				}
				want, got = append(want, statusSorted(one)...), append(got, statusSorted(two)...)
				if a.Tx == 'I' && random.IntN(3) == 0 {
					if v := ask(t, other, "SELECT current_setting('application_name')"); v != "other" {
						t.Fatalf("the other client is called %q after %q", v, did)
					}
				}
				if d := difference(want, got); d != "" {
					t.Fatalf("own name %q: %s\nafter %s", own, d, strings.Join(did, "\n"))
				}
			}
			_, _, _ = a.Close(), b.Close(), other.Close()
		}
	})

	t.Run("on the nodes", func(t *testing.T) {
		for i := range 12 {
			name := fmt.Sprintf("share %d", i)
			c := p.Client(t, "application_name", name)
			ask(t, c, "BEGIN")
			ask(t, c, "SELECT txid_current()")
			got, err := primary.Value(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = '"+name+"' AND state = 'idle in transaction'")
			must(t, err)
			if got != "1" {
				t.Errorf("%s backends are called %q", got, name)
			}
			ask(t, c, "COMMIT")
			must(t, c.Close())
		}
		opened, err := primary.Value(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'share %'")
		must(t, err)
		if opened != "1" && opened != "2" {
			t.Errorf("twelve clients, one after the other, left %s connections", opened)
		}
	})

	t.Run("with the host", func(t *testing.T) {
		c := client(t, p.Addr, appUser, appPassword, "hosts", "application_name", "app")
		want := "app - " + c.Conn().LocalAddr().String()
		if c.Status["application_name"] != want || ask(t, c, "SHOW application_name") != want {
			t.Errorf("told %q, in force %q, want %q", c.Status["application_name"], ask(t, c, "SHOW application_name"), want)
		}
		ask(t, c, "SET application_name = 'x'")
		if v := ask(t, c, "SHOW application_name"); v != "x" {
			t.Errorf("after SET: %q", v)
		}
		ask(t, c, "RESET ALL")
		if v := ask(t, c, "SHOW application_name"); v != want || c.Status["application_name"] != want {
			t.Errorf("after RESET ALL: %q, told %q", v, c.Status["application_name"])
		}
	})
}
