package e2e

import (
	"fmt"
	"testing"

	"pgweir/internal/pgtest"
)

// TestSignals: pg_cancel_backend and pg_terminate_backend of the process id that a client was given act on its session,
// wherever that runs something, for those whom a server would let, and for nobody else.
func TestSignals(t *testing.T) {
	c := sharedCluster(t)
	must(t, c.Exec(t.Context(), "postgres", "CREATE ROLE stranger LOGIN PASSWORD 'stranger secret'"))
	defer func() { must(t, c.Exec(t.Context(), "postgres", "DROP ROLE stranger")) }()
	p := StartProxy(t, c, proxyConfig{Extra: "default_pool_size: 4\n"})
	app := p.Client(t)
	boss := client(t, p.Addr, superUser, superPassword, appDatabase)
	stranger := client(t, p.Addr, "stranger", "stranger secret", appDatabase)
	call := func(from *pgtest.RawClient, function string, pid uint32) []pgtest.Message {
		t.Helper()
		ms, err := from.Query(fmt.Sprintf("SELECT %s(%d)", function, pid))
		must(t, err)
		return ms
	}
	said := func(what string, ms []pgtest.Message, want string) {
		t.Helper()
		got := ""
		for _, m := range ms {
			switch m.Type {
			case 'N':
				got += "warning "
			case 'D':
				got += pgtest.Rows([]pgtest.Message{m})[0][0]
			case 'E':
				got += pgtest.Describe(m)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}

	for name, sql := range map[string]string{
		"on the primary":   "/* pgweir: primary */ SELECT pg_sleep(60)",
		"on a standby":     "/* pgweir: standby */ SELECT pg_sleep(60)",
		"in a transaction": "BEGIN; SELECT pg_sleep(60)",
	} {
		victim := p.Client(t)
		must(t, victim.Send(pgtest.Query(sql)))
		(&vanisher{t: t, c: c}).busy("pg_sleep")
		said("by a stranger, "+name, call(stranger, "pg_cancel_backend", victim.PID), "warning f")
		said("cancelled "+name, call(app, "pg_cancel_backend", victim.PID), "t")
		ms, err := victim.ReadUntilReady(1)
		must(t, err)
		if e := pgtest.FirstError(ms); e == nil || e.Field('C') != "57014" {
			t.Errorf("%s: it heard %s", name, pgtest.DescribeAll(ms))
		}
	}

	victim, running := p.Client(t), p.Client(t)
	must(t, running.Send(pgtest.Query("/* pgweir: primary */ SELECT pg_sleep(60)")))
	(&vanisher{t: t, c: c}).busy("pg_sleep")
	said("terminated by a stranger", call(stranger, "pg_terminate_backend", victim.PID), "warning f")
	if got := ask(t, victim, "SELECT 1"); got != "1" {
		t.Errorf("it says %q", got)
	}
	ms, err := app.Exchange(pgtest.Parse("", "SELECT pg_catalog.pg_terminate_backend($1)", 23), pgtest.Bind("", "", fmt.Sprint(victim.PID)), pgtest.Execute("", 0), pgtest.Sync())
	must(t, err)
	said("terminated, idle", ms, "t")
	said("terminated, running", call(boss, "pg_terminate_backend", running.PID), "t")
	for name, c := range map[string]*pgtest.RawClient{"idle": victim, "running": running} {
		ms, err := c.ReadToEnd()
		must(t, err)
		if e := pgtest.FirstError(ms); e == nil || e.Field('C') != "57P01" || e.Field('S') != "FATAL" {
			t.Errorf("the one that was %s heard %s", name, pgtest.DescribeAll(ms))
		}
	}
	said("gone", call(app, "pg_terminate_backend", victim.PID), "warning f")
	said("the superuser's session", call(app, "pg_terminate_backend", boss.PID), "warning f")
	if got := ask(t, boss, "SELECT 1"); got != "1" {
		t.Errorf("it says %q", got)
	}
}
