package e2e

import (
	"strings"
	"testing"

	"pgweir/internal/localpg"
)

// TestOpaqueReset: with routing.opaque: reset a client gives the connection on which a function has left something back
// at the end of its transaction, and nobody finds anything of it there: neither what DISCARD ALL removes nor the name of a
// custom setting, which it does not.
func TestOpaqueReset(t *testing.T) {
	c := sharedCluster(t)
	primary := client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase)
	const drop = "DROP FUNCTION IF EXISTS opaque_leaves(), opaque_names(); DROP TABLE IF EXISTS opaque_t"
	ask(t, primary, drop)
	ask(t, primary, `CREATE TABLE opaque_t (id int); GRANT ALL ON opaque_t TO PUBLIC;
		CREATE FUNCTION opaque_leaves() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM pg_advisory_lock(77); SET work_mem = '5MB'; SET timezone = 'Asia/Tokyo'; CREATE TEMP TABLE opaque_left (id int); RETURN pg_backend_pid(); END $$;
		CREATE FUNCTION opaque_names() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			PERFORM set_config('opaque.name', 'x', false); RETURN pg_backend_pid(); END $$`)
	t.Cleanup(func() { ask(t, client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase), drop) })
	p := StartProxy(t, c, proxyConfig{Extra: "pool_size: 1\nrouting: {opaque: reset}\n"})
	a, b := client(t, p.Addr, appUser, appPassword, appDatabase), client(t, p.Addr, appUser, appPassword, appDatabase)
	const left = `WITH w AS (INSERT INTO opaque_t VALUES (1) RETURNING id)
		SELECT concat_ws(' ', current_setting('work_mem'), to_regclass('opaque_left'), coalesce(current_setting('opaque.name', true), 'no name'),
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77), current_setting('application_name')) FROM w`
	const pid = "WITH w AS (INSERT INTO opaque_t VALUES (1) RETURNING id) SELECT a.pid FROM pg_stat_activity a, pg_locks l, w WHERE a.pid = l.pid AND l.relation = 'opaque_t'::regclass LIMIT 1"
	ask(t, a, "SET application_name = 'of a'")
	zone := a.Status["TimeZone"]

	process := ask(t, a, "SELECT opaque_leaves()")
	if got := ask(t, b, left); got != "4MB no name 0 " {
		t.Errorf("b sees %q behind what DISCARD ALL removes", got)
	}
	if got := ask(t, b, pid); got != process {
		t.Errorf("b runs on process %s and not on %s, which DISCARD ALL has wiped", got, process)
	}
	if got := ask(t, a, left); got != "4MB no name 0 of a" {
		t.Errorf("a sees %q", got)
	}
	if a.Status["TimeZone"] != zone {
		t.Errorf("a believes in the time zone %s", a.Status["TimeZone"])
	}

	ask(t, a, "BEGIN")
	process = ask(t, a, "SELECT opaque_names()")
	if got := ask(t, a, "SELECT current_setting('opaque.name')"); got != "x" {
		t.Errorf("within its transaction a sees %q", got)
	}
	ask(t, a, "COMMIT")
	if got := ask(t, b, left); got != "4MB no name 0 " {
		t.Errorf("b sees %q behind a custom setting", got)
	}
	if got := ask(t, b, pid); got == process {
		t.Errorf("b runs on process %s, which knows the name", got)
	}
	if got := ask(t, a, left); got != "4MB no name 0 of a" {
		t.Errorf("a sees %q behind a custom setting", got)
	}
}

// TestOpaqueLong: what a query sets that is too long to be looked into stays the client's, and nobody else's.
func TestOpaqueLong(t *testing.T) {
	c := sharedCluster(t)
	p := StartProxy(t, c, proxyConfig{Extra: "pool_size: 2\n"})
	a := client(t, p.Addr, appUser, appPassword, appDatabase)
	ask(t, a, "SET work_mem TO '9MB'; SET lock_timeout TO '7s'; SELECT length('"+strings.Repeat("x", 1<<20)+"')")
	for range 3 {
		b := client(t, p.Addr, appUser, appPassword, appDatabase)
		if got := ask(t, b, "/* pgweir: primary */ SELECT current_setting('work_mem')"); got != "4MB" {
			t.Errorf("b has %s", got)
		}
		if got := ask(t, a, "SELECT current_setting('work_mem')"); got != "9MB" {
			t.Errorf("a has %s", got)
		}
	}
}

// TestLeftNames: the name of a setting that a function has set for its transaction is not there for clients that have not called it.
func TestLeftNames(t *testing.T) {
	c := sharedCluster(t)
	drop := `DROP TABLE IF EXISTS left_t; DROP FUNCTION IF EXISTS left_sets(), left_calls(), left_fires()`
	straight := client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase)
	ask(t, straight, drop)
	ask(t, straight, `CREATE FUNCTION left_sets() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('leftover.name', '1', true); RETURN 1; END $$;
		CREATE FUNCTION left_calls() RETURNS int LANGUAGE sql STABLE SET leftover.declared = 'x' AS 'SELECT 1';
		CREATE FUNCTION left_fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL leftover.trigger = 'x'; RETURN NEW; END $$;
		CREATE TABLE left_t (id int); GRANT ALL ON left_t TO PUBLIC;
		CREATE TRIGGER tr BEFORE INSERT ON left_t FOR EACH ROW EXECUTE FUNCTION left_fires()`)
	must(t, c.WaitReplayed(t.Context()))
	t.Cleanup(func() { ask(t, client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase), drop) })
	p := StartProxy(t, c, proxyConfig{Extra: "pool_size: 1\n"})
	const names = "SELECT concat_ws(' ', coalesce(current_setting('leftover.name', true), 'none'), coalesce(current_setting('leftover.declared', true), 'none'), coalesce(current_setting('leftover.trigger', true), 'none'))"
	for _, sql := range []string{"SELECT left_sets()", "SELECT left_calls()", "INSERT INTO left_t VALUES (1)"} {
		a, b := client(t, p.Addr, appUser, appPassword, appDatabase), client(t, p.Addr, appUser, appPassword, appDatabase)
		for range 2 {
			ask(t, a, sql)
			for _, where := range []string{"/* pgweir: primary */ ", ""} {
				if got := ask(t, b, where+names); got != "none none none" {
					t.Errorf("behind another's %s: %q", sql, got)
				}
			}
		}
	}
}
