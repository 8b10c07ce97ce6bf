package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// answer is what came back for a command that another goroutine waits for.
type answer struct {
	ms  []pgtest.Message
	err error
}

// send runs a command on a client whose answer is waited for later.
func send(c *pgtest.RawClient, command string) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		ms, err := c.Query(command)
		done <- answer{ms, err}
	}()
	return done
}

// told waits for an answer and returns its error's SQLSTATE, "" for success.
func told(t testing.TB, done <-chan answer) string {
	t.Helper()
	select {
	case a := <-done:
		must(t, a.err)
		if e := pgtest.FirstError(a.ms); e != nil {
			return e.Field('C')
		}
		return ""
	case <-time.After(30 * time.Second):
		t.Fatal("no answer came within 30 s")
		return ""
	}
}

// waiting waits until a client is seen to wait for a connection.
func waiting(t testing.TB, console *pgtest.RawClient, pid uint32) {
	t.Helper()
	eventually(t, 15*time.Second, func() error {
		for _, r := range table(t, console, "SHOW HOLDS") {
			if r["id"] == fmt.Sprint(pid) {
				return nil
			}
		}
		return fmt.Errorf("client %d does not wait", pid)
	})
}

// paused says what SHOW DATABASES says of the application's database.
func paused(t testing.TB, console *pgtest.RawClient) string {
	t.Helper()
	return find(t, table(t, console, "SHOW DATABASES"), "name", appDatabase)["paused"]
}

func TestConsolePause(t *testing.T) {
	cl := sharedCluster(t)
	must(t, cl.Exec(t.Context(), appDatabase, "CREATE TABLE paused (i int); GRANT ALL ON paused TO "+appUser))
	t.Cleanup(func() { must(t, cl.Exec(context.Background(), appDatabase, "DROP TABLE paused")) })
	must(t, cl.WaitReplayed(t.Context()))
	p := consoleProxy(t, proxyConfig{Extra: "query_wait_timeout: 20s\ndrain_timeout: 20s\n"})
	c, second := p.consoleClient(t), p.consoleClient(t)
	app, other := p.Client(t), p.Client(t)
	elsewhere := client(t, p.Addr, superUser, superPassword, "postgres")
	ask(t, app, "BEGIN")
	ask(t, app, "INSERT INTO paused VALUES (1)")

	// It waits for the transaction, lets it go on, and holds what comes next.
	pausing := send(second, "PAUSE "+appDatabase)
	eventually(t, 15*time.Second, func() error {
		if paused(t, c) != "1" {
			return fmt.Errorf("not paused yet")
		}
		return nil
	})
	held := send(other, "SELECT count(*) FROM paused")
	waiting(t, c, other.PID)
	ask(t, app, "INSERT INTO paused VALUES (2)")
	select {
	case a := <-pausing:
		t.Fatalf("PAUSE did not wait for a transaction: %v", a)
	default:
	}
	ask(t, elsewhere, "SELECT 1") // another database goes on
	ask(t, app, "COMMIT")
	if code := told(t, pausing); code != "" {
		t.Fatalf("PAUSE: %s; %v", code, table(t, c, "SHOW ACTIVE"))
	}
	for _, r := range table(t, c, "SHOW SERVERS") {
		if r["database"] == appDatabase {
			t.Errorf("a connection stayed open: %v", r)
		}
	}
	if e := order(t, c, "PAUSE "+appDatabase); e == nil || e.Field('C') != "55000" {
		t.Errorf("PAUSE of what is paused: %v", e)
	}
	more := send(app, "SELECT 1")
	waiting(t, c, app.PID)
	must(t, app.Cancel())
	if code := told(t, more); code != "57014" {
		t.Errorf("a cancelled statement that was held: %q", code)
	}
	if row := find(t, table(t, c, "SHOW POOLS"), "database", appDatabase); row["cl_waiting"] != "1" || row["cl_active"] != "1" {
		t.Errorf("SHOW POOLS: %v", row)
	}
	if e := order(t, c, "RESUME "+appDatabase); e != nil {
		t.Fatal(e)
	}
	select {
	case a := <-held:
		must(t, a.err)
		if rows := pgtest.Rows(a.ms); len(rows) != 1 || rows[0][0] != "2" {
			t.Errorf("the held statement: %v", rows)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("RESUME did not let the held statement go")
	}
	if e := order(t, c, "RESUME "+appDatabase); e == nil || e.Field('C') != "55000" {
		t.Errorf("RESUME of what is not paused: %v", e)
	}
	for _, command := range []string{"PAUSE", "RESUME", "RECONNECT", "KILL", "DISABLE", "ENABLE"} {
		if e := order(t, c, command+" nowhere"); e == nil || e.Field('C') != "3D000" {
			t.Errorf("%s of a database that is not there: %v", command, e)
		}
	}

	// Everything, clients that come later too.
	if e := order(t, c, "PAUSE"); e != nil {
		t.Fatal(e)
	}
	if row := find(t, table(t, c, "SHOW STATE"), "key", "paused"); row["value"] != "yes" {
		t.Errorf("SHOW STATE: %v", row)
	}
	held, more = send(app, "SELECT 1"), send(elsewhere, "SELECT 1")
	waiting(t, c, app.PID)
	waiting(t, c, elsewhere.PID)
	if e := order(t, c, "RESUME"); e != nil {
		t.Fatal(e)
	}
	if a, b := told(t, held), told(t, more); a != "" || b != "" {
		t.Errorf("after RESUME: %q and %q", a, b)
	}
}

// TestConsolePauseGivesUp holds that a PAUSE which is cancelled, whose client leaves, or which waited long enough takes
// itself back; and that a statement is not held for longer than it may wait.
func TestConsolePauseGivesUp(t *testing.T) {
	p := consoleProxy(t, proxyConfig{Extra: "query_wait_timeout: 500ms\ndrain_timeout: 1s\n"})
	c := p.consoleClient(t)
	app, other := p.Client(t), p.Client(t)
	ask(t, app, "BEGIN")
	ask(t, app, "SELECT pg_catalog.pg_current_xact_id()")
	gone := func() {
		t.Helper()
		eventually(t, 15*time.Second, func() error {
			if paused(t, c) != "0" {
				return fmt.Errorf("still paused")
			}
			return nil
		})
		ask(t, other, "SELECT 1")
	}
	begun := func() {
		t.Helper()
		eventually(t, 15*time.Second, func() error {
			if paused(t, c) != "1" {
				return fmt.Errorf("not paused yet")
			}
			return nil
		})
	}
	if e := order(t, c, "PAUSE "+appDatabase); e == nil || e.Field('C') != "55006" || !strings.Contains(e.Field('D'), "1 of them") {
		t.Errorf("PAUSE while a transaction is open: %v", e)
	}
	gone()
	second := p.consoleClient(t)
	pausing := send(second, "PAUSE "+appDatabase)
	begun()
	must(t, second.Cancel())
	if code := told(t, pausing); code != "57014" {
		t.Errorf("a cancelled PAUSE: %q", code)
	}
	gone()
	must(t, second.Send(pgtest.Query("PAUSE "+appDatabase)))
	begun()
	must(t, second.Close())
	gone()
	ask(t, app, "COMMIT")
	if e := order(t, c, "PAUSE "+appDatabase); e != nil {
		t.Fatal(e)
	}
	if e := order(t, other, "SELECT 1"); e == nil || e.Field('C') != "57P03" {
		t.Errorf("a statement that was held too long: %v", e)
	}
	if e := order(t, c, "RESUME "+appDatabase); e != nil {
		t.Fatal(e)
	}
	ask(t, other, "SELECT 1")
}

func TestConsoleKills(t *testing.T) {
	cl := sharedCluster(t)
	p := consoleProxy(t, proxyConfig{})
	c := p.consoleClient(t)
	primary, err := cl.Primary(t.Context())
	must(t, err)
	// In a transaction, running a statement, idle, and one of another database.
	inTx, busy, idle := p.Client(t, "application_name", "victim"), p.Client(t, "application_name", "victim"), p.Client(t)
	elsewhere := client(t, p.Addr, superUser, superPassword, "postgres")
	ask(t, elsewhere, "SELECT 1")
	ask(t, idle, "SELECT 1")
	ask(t, inTx, "CREATE TABLE killed (i int)")
	ask(t, inTx, "BEGIN")
	ask(t, inTx, "INSERT INTO killed VALUES (1)")
	running := send(busy, "SELECT pg_catalog.pg_sleep(600), pg_catalog.pg_current_xact_id()")
	eventually(t, 15*time.Second, func() error {
		rows := table(t, c, "SHOW ACTIVE")
		if !slices.ContainsFunc(rows, func(row map[string]string) bool {
			return row["id"] == fmt.Sprint(busy.PID) && row["state"] == "running"
		}) {
			return fmt.Errorf("it does not run: %v", rows)
		}
		return nil
	})
	if e := order(t, c, "KILL_CLIENT 1"); e == nil || e.Field('C') != "42704" {
		t.Errorf("KILL_CLIENT of nobody: %v", e)
	}
	if e := order(t, c, fmt.Sprintf("KILL_CLIENT %d", busy.PID)); e != nil {
		t.Fatal(e)
	}
	select {
	case a := <-running:
		if !errors.Is(a.err, io.EOF) {
			t.Errorf("the answer of a killed client ended with %v", a.err)
		}
		ended(t, "the killed client", a.ms, nil)
	case <-time.After(30 * time.Second):
		t.Fatal("a killed client's statement goes on")
	}
	ask(t, idle, "SELECT 1")
	ask(t, inTx, "SELECT 1")
	if e := order(t, c, "KILL "+appDatabase); e != nil {
		t.Fatal(e)
	}
	for name, client := range map[string]*pgtest.RawClient{"in a transaction": inTx, "idle": idle} {
		ms, err := client.ReadToEnd()
		ended(t, name, ms, err)
	}
	eventually(t, 15*time.Second, func() error {
		n, err := primary.Value(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'victim'")
		if err == nil && n != "0" {
			err = fmt.Errorf("%s backends are left", n)
		}
		return err
	})
	ask(t, elsewhere, "SELECT 1")
	if paused(t, c) != "1" {
		t.Error("the database takes clients after KILL, before RESUME")
	}
	if e := order(t, c, "RESUME "+appDatabase); e != nil {
		t.Fatal(e)
	}
	again := p.Client(t)
	if n := ask(t, again, "SELECT count(*) FROM killed"); n != "0" {
		t.Errorf("the killed transaction left %s rows", n)
	}
	ask(t, again, "DROP TABLE killed")
	if strings.Contains(p.log(), "state changed") && strings.Contains(p.log(), "down") {
		t.Error("a kill made a node look down")
	}

	// One console client kills another.
	victim := p.consoleClient(t)
	if e := order(t, c, fmt.Sprintf("KILL_CLIENT %d", victim.PID)); e != nil {
		t.Fatal(e)
	}
	ms, err := victim.ReadToEnd()
	ended(t, "a client of the console", ms, err)
}

// ended fails the test unless a connection ended with FATAL 57P01.
func ended(t testing.TB, who string, ms []pgtest.Message, err error) {
	t.Helper()
	for _, m := range ms {
		if m.Type == 'E' && pgtest.Field(m, 'C') == "57P01" && pgtest.Field(m, 'S') == "FATAL" {
			return
		}
	}
	if e := serverError(err); e != nil && e.Field('C') == "57P01" {
		return
	}
	t.Errorf("%s did not end with FATAL 57P01: %v, %v", who, ms, err)
}

func TestConsoleReconnects(t *testing.T) {
	p := consoleProxy(t, proxyConfig{})
	c := p.consoleClient(t)
	app, idle := p.Client(t), p.Client(t)
	pids := func() map[string]bool {
		out := make(map[string]bool)
		for _, r := range table(t, c, "SHOW SERVERS") {
			out[r["ptr"]] = true
		}
		return out
	}
	ask(t, idle, "SELECT pg_catalog.pg_current_xact_id()")
	ask(t, app, "BEGIN")
	ask(t, app, "SELECT pg_catalog.pg_current_xact_id()")
	ask(t, idle, "SELECT pg_catalog.pg_current_xact_id()")
	before := pids()
	if e := order(t, c, "RECONNECT "+appDatabase); e != nil {
		t.Fatal(e)
	}
	left := table(t, c, "SHOW SERVERS")
	if len(left) != 1 || left[0]["close_needed"] != "1" || left[0]["state"] != "active" {
		t.Errorf("after RECONNECT only the open transaction's connection stays: %v", left)
	}
	ask(t, app, "COMMIT")
	ask(t, app, "SELECT pg_catalog.pg_current_xact_id()")
	for ptr := range pids() {
		if before[ptr] {
			t.Errorf("connection %s is still there", ptr)
		}
	}
	// Clients are refused by name, and those that are in stay.
	if e := order(t, c, "DISABLE "+appDatabase); e != nil {
		t.Fatal(e)
	}
	_, err := pgtest.Connect(pgtest.ClientConfig{Addr: p.Addr, User: appUser, Password: appPassword, Database: appDatabase, Timeout: 30 * time.Second})
	if e := serverError(err); e == nil || e.Field('C') != "55000" {
		t.Errorf("a client of a disabled database: %v", err)
	}
	ask(t, app, "SELECT 1")
	if e := order(t, c, "ENABLE "+appDatabase); e != nil {
		t.Fatal(e)
	}
	ask(t, p.Client(t), "SELECT 1")
}

func TestConsoleReloads(t *testing.T) {
	p := consoleProxy(t, proxyConfig{Extra: "pool_size: 3\n"})
	c := p.consoleClient(t)
	size := func() string { return find(t, table(t, c, "SHOW CONFIG"), "key", "pool_size")["value"] }
	if size() != "3" {
		t.Fatalf("pool_size is %s", size())
	}
	file := filepath.Join(p.dir, "pgweir.yaml")
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, bytes.Replace(text, []byte("pool_size: 3"), []byte("pool_size: many"), 1), 0o600))
	if e := order(t, c, "RELOAD"); e == nil || e.Field('C') != "F0000" || !strings.Contains(e.Field('D'), "pool_size") {
		t.Errorf("RELOAD of a wrong configuration: %v", e)
	}
	if size() != "3" {
		t.Errorf("a wrong configuration was taken: %s", size())
	}
	must(t, os.WriteFile(file, bytes.Replace(text, []byte("pool_size: 3"), []byte("pool_size: 4"), 1), 0o600))
	if e := order(t, c, "RELOAD"); e != nil {
		t.Error(e)
	}
	if size() != "4" {
		t.Errorf("pool_size is %s after RELOAD", size())
	}
	// Who may is up to the configuration in force.
	must(t, os.WriteFile(file, bytes.Replace(text, []byte(consoleAdmin+": admin"), []byte(consoleAdmin+": stats"), 1), 0o600))
	if e := order(t, c, "RELOAD"); e != nil {
		t.Error(e)
	}
	if e := order(t, c, "PAUSE"); e == nil || e.Field('C') != "42501" {
		t.Errorf("an admin who is none any more: %v", e)
	}
}

func TestConsoleShutsDown(t *testing.T) {
	// stopped waits for the process to end by itself.
	stopped := func(t *testing.T, p *Proxy) {
		t.Helper()
		select {
		case <-p.done:
			if p.err != nil {
				t.Errorf("the proxy ended with %v", p.err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the proxy did not end")
		}
	}
	refused := func(p *Proxy) error {
		conn, err := net.Dial("tcp", p.Addr)
		if err == nil {
			_ = conn.Close()
			return fmt.Errorf("clients are still taken")
		}
		return nil
	}
	t.Run("at once", func(t *testing.T) {
		p := consoleProxy(t, proxyConfig{MayFail: true})
		app := p.Client(t)
		ask(t, app, "BEGIN")
		ask(t, app, "SELECT pg_catalog.pg_current_xact_id()")
		must(t, p.consoleClient(t).Send(pgtest.Query("SHUTDOWN")))
		ms, err := app.ReadToEnd()
		ended(t, "a client in a transaction", ms, err)
		stopped(t, p)
	})
	t.Run("servers", func(t *testing.T) {
		p := consoleProxy(t, proxyConfig{MayFail: true})
		app, idle := p.Client(t), p.Client(t)
		ask(t, app, "BEGIN")
		ask(t, app, "SELECT pg_catalog.pg_current_xact_id()")
		must(t, p.consoleClient(t).Send(pgtest.Query("SHUTDOWN WAIT_FOR_SERVERS")))
		ms, err := idle.ReadToEnd()
		ended(t, "an idle client", ms, err)
		ask(t, app, "SELECT 1")
		must(t, app.Send(pgtest.Query("COMMIT")))
		ms, err = app.ReadToEnd()
		ended(t, "a client whose transaction is over", ms, err)
		stopped(t, p)
	})
	t.Run("clients", func(t *testing.T) {
		p := consoleProxy(t, proxyConfig{MayFail: true})
		app := p.Client(t)
		c := p.consoleClient(t)
		if e := order(t, c, "SHUTDOWN WAIT_FOR_CLIENTS"); e != nil {
			t.Fatal(e)
		}
		eventually(t, 15*time.Second, func() error { return refused(p) })
		ask(t, app, "SELECT 1")
		if row := find(t, table(t, c, "SHOW STATE"), "key", "stopping"); row["value"] != "yes" {
			t.Errorf("SHOW STATE: %v", row)
		}
		must(t, app.Close())
		ms, err := c.ReadToEnd()
		ended(t, "the console's client", ms, err)
		stopped(t, p)
	})
}
