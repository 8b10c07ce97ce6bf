package e2e

import (
	"fmt"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// TestServerSettings: what connections start with changes on the server. Sessions that are in and hold no connection have it
// soon, with reads and writes alike, are told of what a server reports, and keep what they have set themselves; one that
// holds its connection keeps what that began with, as without us.
func TestServerSettings(t *testing.T) {
	c := sharedCluster(t)
	const user, password = "tuned", "tuned secret"
	for _, sql := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", user, password),
		"CREATE SCHEMA IF NOT EXISTS one; CREATE TABLE one.place AS SELECT 'one' AS v; GRANT USAGE ON SCHEMA one TO PUBLIC; GRANT ALL ON one.place TO PUBLIC",
		"CREATE SCHEMA IF NOT EXISTS two; CREATE TABLE two.place AS SELECT 'two' AS v; GRANT USAGE ON SCHEMA two TO PUBLIC; GRANT ALL ON two.place TO PUBLIC",
		"ALTER ROLE tuned SET search_path = one",
	} {
		must(t, c.Exec(t.Context(), appDatabase, sql))
	}
	defer func() {
		must(t, c.Exec(t.Context(), appDatabase, "DROP SCHEMA one CASCADE; DROP SCHEMA two CASCADE; DROP ROLE tuned"))
	}()
	p := StartProxy(t, c, proxyConfig{Extra: "default_pool_size: 3\n"})
	in := func() *pgtest.RawClient { return client(t, p.Addr, user, password, appDatabase) }
	plain, own, holds := in(), in(), in()
	named := client(t, p.Addr, user, password, appDatabase, "application_name", "its own")
	ask(t, own, "SET work_mem = '3MB'; SET datestyle = 'SQL'")
	ask(t, holds, "SELECT pg_backend_pid()")
	// Both kinds of connection are there before anything changes.
	const read, write = "SELECT current_setting('work_mem') || ' ' || v FROM place", "UPDATE place SET v = v RETURNING current_setting('work_mem') || ' ' || v"
	shows := func(s *pgtest.RawClient, want string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			for _, sql := range []string{read, "/* pgweir: standby */ " + read, write} {
				if got := ask(t, s, sql); got != want {
					return fmt.Errorf("%s: %q, want %q", sql, got, want)
				}
			}
			return nil
		})
	}
	shows(plain, "4MB one")
	shows(own, "3MB one")

	must(t, c.Exec(t.Context(), appDatabase, "ALTER ROLE tuned SET search_path = two; ALTER ROLE tuned SET datestyle = 'German'; ALTER ROLE tuned SET work_mem = '9MB'; ALTER ROLE tuned SET application_name = 'of the role'"))
	must(t, c.WaitReplayed(t.Context()))
	shows(plain, "9MB two")
	shows(in(), "9MB two")
	shows(own, "3MB two")
	shows(named, "9MB two")
	for s, want := range map[*pgtest.RawClient]string{plain: "of the role", named: "its own"} {
		if got := ask(t, s, "SHOW application_name"); got != want || s.Status["application_name"] != want {
			t.Errorf("application_name is %q, told %q, want %q", got, s.Status["application_name"], want)
		}
	}
	if got := ask(t, holds, write); got != "4MB one" {
		t.Errorf("a session that holds its connection has %q", got)
	}
	ask(t, own, "RESET work_mem")
	shows(own, "9MB two")
	told := func(s *pgtest.RawClient, want string) {
		t.Helper()
		if got := s.Status["DateStyle"]; got != want {
			t.Errorf("DateStyle was told as %q, want %q", got, want)
		}
		if got := ask(t, s, "SHOW DateStyle"); got != want {
			t.Errorf("DateStyle is %q, want %q", got, want)
		}
	}
	told(plain, "German, DMY")
	told(own, "SQL, DMY")

	must(t, c.Exec(t.Context(), appDatabase, "ALTER ROLE tuned RESET ALL; ALTER DATABASE "+appDatabase+" SET search_path = one"))
	defer func() { must(t, c.Exec(t.Context(), "postgres", "ALTER DATABASE "+appDatabase+" RESET search_path")) }()
	must(t, c.WaitReplayed(t.Context()))
	shows(plain, "4MB one")
	told(plain, "ISO, MDY")

	for _, n := range c.Nodes {
		must(t, n.Exec(t.Context(), "postgres", "ALTER SYSTEM SET work_mem = '7MB'"))
		must(t, n.Exec(t.Context(), "postgres", "SELECT pg_reload_conf()"))
	}
	defer func() {
		for _, n := range c.Nodes {
			must(t, n.Exec(t.Context(), "postgres", "ALTER SYSTEM RESET work_mem"))
			must(t, n.Exec(t.Context(), "postgres", "SELECT pg_reload_conf()"))
		}
	}()
	shows(plain, "7MB one")
	shows(in(), "7MB one")
}
