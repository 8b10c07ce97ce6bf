package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
)

// leakPool is how many connections to each node the clients share.
const leakPool = 4

// leakClients is how many take part: LEAK_CLIENTS, or 24, which get at more of each other's connections in a short hunt.
func leakClients(t *testing.T) int {
	v := os.Getenv("LEAK_CLIENTS")
	if v == "" {
		return 24
	}
	n, err := strconv.Atoi(v)
	must(t, err)
	return n
}

// leakTime is how long the hunt runs: LEAK_TIME, or 20 s.
func leakTime(t *testing.T) time.Duration {
	v := os.Getenv("LEAK_TIME")
	if v == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(v)
	must(t, err)
	return d
}

// leakOpaque is routing.opaque in the hunt: LEAK_OPAQUE, or pin.
func leakOpaque() string {
	if v := os.Getenv("LEAK_OPAQUE"); v != "" {
		return v
	}
	return "pin"
}

// hunter is one client of the hunt and what it must see of itself.
type hunter struct {
	c        *pgtest.RawClient
	connect  func() (*pgtest.RawClient, error)
	user     string
	id       int
	rng      *rand.Rand
	settings map[string]string // by name: what SHOW must say
	defaults map[string]string // and what it must say where the client has not set it
	custom   string            // of leak.me; "" when the client has never made it
	traced   bool              // a trigger has made leak.traced
	resets   bool              // what an opaque statement leaves is lost at once
	prepared map[string]int    // by name: what it returns
	steps    []string          // the last things done, for the report
}

// said runs SQL and returns its rows, joined, or "!" and the SQLSTATE.
func (h *hunter) said(ms ...pgtest.Message) (string, error) {
	h.steps = append(h.steps, pgtest.DescribeAll(ms)[0])
	if len(h.steps) > 12 {
		h.steps = h.steps[1:]
	}
	got, err := h.c.Exchange(ms...)
	if err != nil {
		return "", err
	}
	if e := pgtest.FirstError(got); e != nil {
		return "!" + e.Field('C'), nil
	}
	var rows []string
	for _, row := range pgtest.Rows(got) {
		rows = append(rows, strings.Join(row, ","))
	}
	return strings.Join(rows, ";"), nil
}

// expect fails when the answer is not one of those wanted.
func (h *hunter) expect(sql string, want ...string) error {
	return h.expectOf([]pgtest.Message{pgtest.Query(sql)}, want...)
}

// expectOf is expect for any messages.
func (h *hunter) expectOf(ms []pgtest.Message, want ...string) error {
	got, err := h.said(ms...)
	if err != nil {
		return err
	}
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%s: %q, want %q; before that: %s", h.steps[len(h.steps)-1], got, want, strings.Join(h.steps, " | "))
}

// expectSoon asks until the answer is the one that is wanted: what a statement has left goes when the catalog view knows
// all names in it, or after a moment.
func (h *hunter) expectSoon(sql, want string) error {
	for patience := time.Now().Add(5 * time.Second); time.Now().Before(patience); {
		if got, err := h.said(pgtest.Query(sql)); err != nil || got == want {
			return err
		}
	}
	return h.expect(sql, want)
}

// all runs several checks up to the first that fails.
func all(checks ...error) error {
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

// step does one thing and looks whether it sees only itself.
func (h *hunter) step() error {
	switch h.rng.IntN(18) {
	case 0, 1: // a setting
		name := []string{"work_mem", "statement_timeout", "datestyle", "search_path", "application_name"}[h.rng.IntN(5)]
		if h.rng.IntN(4) == 0 {
			delete(h.settings, name)
			return h.expect("RESET "+name, "")
		}
		value := map[string][]string{
			"work_mem": {"1MB", "2MB", "3MB"}, "statement_timeout": {"10min", "11min"}, "datestyle": {"ISO, DMY", "German, DMY"},
			"search_path": {"public", "pg_catalog, public"}, "application_name": {"one", "another"},
		}[name]
		v := value[h.rng.IntN(len(value))]
		set := fmt.Sprintf("SET %s TO '%s'", name, v)
		if name == "datestyle" || name == "search_path" {
			set = fmt.Sprintf("SET %s TO %s", name, v)
		}
		h.settings[name] = v
		return h.expect(set, "")
	case 2, 3: // what is set, on whichever node
		for name, v := range h.defaults {
			if own, ok := h.settings[name]; ok {
				v = own
			}
			if err := h.expect(fmt.Sprintf("SELECT current_setting('%s')", name), v); err != nil {
				return err
			}
		}
		return h.expect("SELECT coalesce(current_setting('leak.me', true), 'none')", map[bool]string{true: "none", false: h.custom}[h.custom == ""])
	case 4: // a custom setting: half of the clients never make it
		if h.id%2 == 0 {
			return h.expect("SELECT current_setting('leak.me')", "!42704")
		}
		h.custom = fmt.Sprint("of ", h.id)
		if h.rng.IntN(2) == 0 { // as a parameter
			h.custom = fmt.Sprint("of ", h.id, " by parameter ", h.rng.IntN(3))
			return h.expectOf([]pgtest.Message{
				pgtest.Parse("", "SELECT set_config('leak.me', $1, false)"), pgtest.Bind("", "", h.custom), pgtest.Execute("", 0), pgtest.Sync(),
			}, h.custom)
		}
		return h.expect(fmt.Sprintf("SELECT set_config('leak.me', '%s', false)", h.custom), h.custom)
	case 5: // a transaction whose settings are undone
		return all(
			h.expect("BEGIN", ""), h.expect("SET LOCAL work_mem TO '7MB'", ""), h.expect("SET lock_timeout TO '5s'", ""),
			h.expect("SHOW work_mem", "7MB"), h.expect("ROLLBACK", ""), h.expect("SHOW lock_timeout", "0"))
	case 6: // a prepared statement under a name that others use too
		name := fmt.Sprint("s", h.rng.IntN(3))
		value := h.id*1000 + h.rng.IntN(3)
		h.prepared[name] = value
		return h.expectOf([]pgtest.Message{
			pgtest.CloseStatement(name), pgtest.Parse(name, fmt.Sprintf("SELECT %d + 0", value)), pgtest.Bind("", name), pgtest.Execute("", 0), pgtest.Sync(),
		}, fmt.Sprint(value))
	case 7, 8: // … used, or not there
		name := fmt.Sprint("s", h.rng.IntN(3))
		want := "!26000"
		if value, ok := h.prepared[name]; ok {
			want = fmt.Sprint(value)
		}
		return h.expectOf([]pgtest.Message{pgtest.Bind("", name), pgtest.Execute("", 0), pgtest.Sync()}, want)
	case 9: // what SQL sees of them
		names := make([]string, 0, len(h.prepared))
		for name := range h.prepared {
			names = append(names, name)
		}
		sort.Strings(names)
		return h.expect("SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM pg_prepared_statements WHERE NOT from_sql OR name <> ''", strings.Join(names, " "))
	case 10: // a temporary table that nobody else has
		return all(
			h.expect("SELECT count(*) FROM pg_class WHERE relname = 'leak_temp' AND pg_table_is_visible(oid)", "0"),
			h.expect(fmt.Sprintf("CREATE TEMP TABLE leak_temp AS SELECT %d AS id", h.id), ""),
			h.expect("SELECT id FROM leak_temp", fmt.Sprint(h.id)), h.end())
	case 11: // a session's lock
		return all(
			h.lock(),
			h.expect("SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", fmt.Sprint(h.id)),
			h.end())
	case 12: // a sequence: one's own value, none, or for the first one of this user the error
		if h.id%3 == 0 {
			return h.expect("SELECT lastval()", "!55000")
		}
		v, err := h.said(pgtest.Query("SELECT nextval('leak_seq')"))
		if err != nil {
			return err
		}
		return all(h.expect("SELECT lastval()", v, "!55000"), h.discardAll()) // or it would keep its connection
	case 13: // who one is, and who one has become
		return all(
			h.expect("SELECT session_user || ' ' || current_user", h.user+" "+h.user),
			h.expect("SET ROLE leak_role", ""), h.expect("SELECT session_user || ' ' || current_user", h.user+" leak_role"),
			h.expect("RESET ROLE", ""), h.expect("SELECT current_user", h.user))
	case 14: // a trigger that calls set_config, which nobody has told the proxy of
		err := all(
			h.expect("SELECT coalesce(current_setting('leak.traced', true), 'none')", h.traces()...),
			h.expect(fmt.Sprintf("INSERT INTO leak_trace VALUES (%d)", h.id), ""))
		if h.resets {
			return all(err, h.expectSoon("/* pgweir: primary */ SELECT coalesce(current_setting('leak.traced', true), 'none')", "none"))
		}
		h.traced = true
		return all(err, h.expect("SELECT current_setting('leak.traced')", fmt.Sprint(h.id)), h.end())
	case 15:
		return h.expect("SELECT coalesce(current_setting('leak.traced', true), 'none')", h.traces()...)
	case 16: // a function that leaves a setting, a temporary table and a lock
		err := all(
			h.expect("SELECT count(*) FROM pg_class WHERE relname = 'leak_left' AND pg_table_is_visible(oid)", "0"),
			h.expect(fmt.Sprintf("SELECT leak_leaves(%d)", h.id), "1"))
		if !h.resets {
			return all(err, h.expect("SELECT current_setting('work_mem')", "5MB"), h.expect("SELECT id FROM leak_left", fmt.Sprint(h.id)), h.end())
		}
		own, ok := h.settings["work_mem"]
		if !ok {
			own = h.defaults["work_mem"]
		}
		return all(err, h.expectSoon("/* pgweir: primary */ SELECT current_setting('work_mem')", own), h.expect("SELECT count(*) FROM pg_class WHERE relname = 'leak_left' AND pg_table_is_visible(oid)", "0"))
	}
	// PREPARE in SQL
	return all(
		h.expect(fmt.Sprintf("PREPARE leak_sql AS SELECT %d", h.id), ""), h.expect("EXECUTE leak_sql", fmt.Sprint(h.id)), h.end())
}

// traces is what the session may see of the setting that only the trigger makes.
func (h *hunter) traces() []string {
	if h.traced {
		return []string{"none", ""} // a connection that knows the name shows it empty
	}
	return []string{"none"}
}

// end leaves behind what the client has made of its session: with DISCARD ALL, or by going away.
func (h *hunter) end() error {
	if h.rng.IntN(2) == 0 {
		return h.discardAll()
	}
	if err := h.c.Close(); err != nil {
		return err
	}
	h.settings, h.prepared, h.custom, h.traced = make(map[string]string), make(map[string]int), "", false
	c, err := h.connect()
	h.c = c
	return err
}

// lock takes the session's lock. A client that has gone away may have it for a moment still: the server's process
// hears of the end later than the client comes back, with and without a proxy.
func (h *hunter) lock() error {
	sql, patience := fmt.Sprintf("SELECT pg_try_advisory_lock(%d)", h.id), time.Now().Add(20*time.Second)
	for time.Now().Before(patience) {
		if got, err := h.said(pgtest.Query(sql)); err != nil || got == "t" {
			return err
		}
	}
	return h.expect(sql, "t")
}

// discardAll ends what the client has made of a session.
func (h *hunter) discardAll() error {
	clear(h.settings)
	clear(h.prepared)
	if h.custom != "" {
		h.custom = " "
	}
	if err := h.expect("DISCARD ALL", ""); err != nil || h.custom == "" {
		return err
	}
	h.custom = fmt.Sprint("again ", h.id)
	return h.expect(fmt.Sprintf("SELECT set_config('leak.me', '%s', false)", h.custom), h.custom)
}

// TestLeaks lets many clients take turns on few connections, each doing what leaves something on
// a connection, and each looking whether it sees only itself.
func TestLeaks(t *testing.T) {
	c := sharedCluster(t)
	primary := client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase)
	drop := "DROP TABLE IF EXISTS leak_trace; DROP FUNCTION IF EXISTS leak_traced(), leak_leaves(int); DROP SEQUENCE IF EXISTS leak_seq; DROP ROLE IF EXISTS leak_role, leak_other"
	ask(t, primary, drop)
	ask(t, primary, "CREATE ROLE leak_role; CREATE ROLE leak_other LOGIN PASSWORD 'other'; GRANT leak_role TO leak_other, "+appUser+`;
		CREATE SEQUENCE leak_seq; GRANT ALL ON SEQUENCE leak_seq TO PUBLIC; CREATE TABLE leak_trace (id int); GRANT ALL ON leak_trace TO PUBLIC;
		CREATE FUNCTION leak_traced() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('leak.traced', NEW.id::text, false); RETURN NEW; END $$;
		CREATE TRIGGER traced BEFORE INSERT ON leak_trace FOR EACH ROW EXECUTE FUNCTION leak_traced();
		CREATE FUNCTION leak_leaves(id int) RETURNS int LANGUAGE plpgsql AS $$ DECLARE held int; BEGIN
			SELECT count(*) INTO held FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
			PERFORM pg_advisory_lock(1000 + id); SET work_mem = '5MB'; CREATE TEMP TABLE leak_left AS SELECT id; RETURN held + 1; END $$`)
	t.Cleanup(func() { ask(t, client(t, c.Nodes[0].Addr(), localpg.Superuser, c.Password, appDatabase), drop) })
	p := StartProxy(t, c, proxyConfig{Extra: fmt.Sprintf("pool_size: %d\nrouting: {opaque: %s}\n", leakPool, leakOpaque()), Users: map[string]string{"leak_other": "other"}})
	users := map[string]string{appUser: appPassword, "leak_other": "other"}
	defaults := make(map[string]string)
	for _, name := range []string{"work_mem", "statement_timeout", "datestyle", "search_path"} {
		defaults[name] = ask(t, primary, fmt.Sprintf("SELECT current_setting('%s')", name))
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	until := time.Now().Add(leakTime(t))
	var wg sync.WaitGroup
	var steps, leaks atomic.Int64
	clients := leakClients(t)
	for i := range clients {
		user := []string{appUser, "leak_other"}[i%3/2]
		own := maps.Clone(defaults)
		own["application_name"] = ""
		var params []string
		if i%4 > 0 {
			own["application_name"] = fmt.Sprint("client ", i+1)
			params = []string{"application_name", own["application_name"]}
		}
		connect := func() (*pgtest.RawClient, error) {
			return pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: user, Password: users[user], Database: appDatabase, Params: params, Timeout: 60 * time.Second, Check: secondOpinion()})
		}
		c, err := connect()
		must(t, err)
		h := &hunter{
			c: c, connect: connect, user: user, id: i + 1, rng: rand.New(rand.NewPCG(seed, uint64(i))),
			settings: make(map[string]string), defaults: own, prepared: make(map[string]int), resets: leakOpaque() == "reset",
		}
		wg.Go(func() {
			defer func() {
				if h.c != nil {
					_ = h.c.Close()
				}
			}()
			for time.Now().Before(until) && leaks.Load() < 5 {
				if err := h.step(); err != nil {
					leaks.Add(1)
					t.Errorf("client %d: %v", h.id, err)
					return
				}
				steps.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d steps of %d clients on %d connections to each node", steps.Load(), clients, leakPool)
	if steps.Load() < int64(clients) {
		t.Error("hardly anything was done")
	}
}
