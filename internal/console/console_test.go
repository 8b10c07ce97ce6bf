package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fixed is a source that shows the same until it is changed, and a control that remembers orders.
type fixed struct {
	mu     sync.Mutex // of state, where another goroutine asks for it
	state  State
	orders []Order
	fails  error
}

func (f *fixed) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	s.Now = time.Now()
	return s
}

func (f *fixed) Settings() []Setting {
	return []Setting{{Key: "max_client_conn", Value: "7", Default: "10000"}, {Key: "route", Value: "auto", Default: "auto", Changeable: true}}
}

func (f *fixed) Carry(_ context.Context, _ string, o Order) error {
	f.orders = append(f.orders, o)
	return f.fails
}

// newFixed is a console of a fixed source.
func newFixed(t *testing.T) (*Console, *fixed) {
	t.Helper()
	f := &fixed{}
	cfg := DefaultConfig()
	cfg.Source, cfg.Control, cfg.Version = f, f, "pgweir test"
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, f
}

// rows runs one command and returns its rows as text, NULL as "∅".
func rows(t *testing.T, c *Console, text string) [][]string {
	t.Helper()
	commands, err := c.Read("u", RoleStats, text)
	if err != nil || len(commands) != 1 {
		t.Fatalf("%s: %d commands, %v", text, len(commands), err)
	}
	r, err := commands[0].Run(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var out [][]string
	for _, row := range r.Rows {
		var values []string
		for _, v := range row {
			if v == nil {
				v = []byte("∅")
			}
			values = append(values, string(v))
		}
		if len(values) != len(commands[0].Columns) {
			t.Errorf("%s: %d values in %d columns", text, len(values), len(commands[0].Columns))
		}
		out = append(out, values)
	}
	return out
}

// TestColumnsArePgBouncers holds the columns that PgBouncer 1.18 has, with its types, in its order; what is ours stands
// behind them.
func TestColumnsArePgBouncers(t *testing.T) {
	socket := "type:25 user:25 database:25 state:25 addr:25 port:23 local_addr:25 local_port:23 connect_time:25 request_time:25 wait:23 wait_us:23 " +
		"close_needed:23 ptr:25 link:25 remote_pid:23 tls:25 application_name:25"
	usage := "database:25 xact_count:1700 query_count:1700 bytes_received:1700 bytes_sent:1700 xact_time:1700 query_time:1700 wait_time:1700"
	want := map[string]string{
		"POOLS": "database:25 user:25 cl_active:23 cl_waiting:23 cl_active_cancel_req:23 cl_waiting_cancel_req:23 sv_active:23 sv_active_cancel:23 " +
			"sv_being_canceled:23 sv_idle:23 sv_used:23 sv_tested:23 sv_login:23 maxwait:23 maxwait_us:23 pool_mode:25",
		"STATS": "database:25 total_xact_count:1700 total_query_count:1700 total_received:1700 total_sent:1700 total_xact_time:1700 total_query_time:1700 " +
			"total_wait_time:1700 avg_xact_count:1700 avg_query_count:1700 avg_recv:1700 avg_sent:1700 avg_xact_time:1700 avg_query_time:1700 " +
			"avg_wait_time:1700 +total_requests:1700",
		"STATS_TOTALS": usage, "STATS_AVERAGES": usage,
		"TOTALS": "name:25 value:1700",
		"DATABASES": "name:25 host:25 port:23 database:25 force_user:25 pool_size:23 min_pool_size:23 reserve_pool:23 pool_mode:25 max_connections:23 " +
			"current_connections:23 paused:23 disabled:23 +cluster:25 +server_database:25",
		"CLIENTS": socket + " +id:23", "SERVERS": socket,
		"SOCKETS": socket + " recv_pos:23 pkt_pos:23 pkt_remain:23 send_pos:23 send_remain:23 pkt_avail:23 send_avail:23",
		"USERS":   "name:25 pool_mode:25",
		"LISTS":   "list:25 items:23",
		"CONFIG":  "key:25 value:25 default:25 changeable:25",
		"VERSION": "version:25",
	}
	c, _ := newFixed(t)
	for name, columns := range want {
		commands, err := c.Read("u", RoleStats, "SHOW "+name)
		if err != nil {
			t.Errorf("SHOW %s: %v", name, err)
			continue
		}
		var got []string
		for _, col := range commands[0].Columns {
			got = append(got, fmt.Sprintf("%s:%d", col.Name, col.Type))
		}
		if w := strings.Fields(strings.ReplaceAll(columns, "+", "")); !slices.Equal(got, w) {
			t.Errorf("SHOW %s has\n%v, wanted\n%v", name, got, w)
		}
	}
}

// TestPeersAreShown holds what SHOW PEERS says.
func TestPeersAreShown(t *testing.T) {
	c, f := newFixed(t)
	if got := rows(t, c, "SHOW PEERS"); len(got) != 0 {
		t.Errorf("without peers: %q", got)
	}
	f.state.Peers = []Peer{{Process: 2, Host: "pgweir-2", Port: 6432, PoolSize: 64}, {Process: 0, Host: "::1", Port: 6433, PoolSize: 64}}
	want := "[[2 pgweir-2 6432 64] [0 ::1 6433 64]]"
	if got := fmt.Sprint(rows(t, c, "SHOW PEERS")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPoolsSumUp(t *testing.T) {
	c, f := newFixed(t)
	f.state = State{
		Databases: []Database{{Name: "app", PoolMode: "transaction"}, {Name: "report", PoolMode: "session"}},
		Clients: []Client{
			{ID: 1, User: "anna", Name: "app", PoolMode: "transaction"},
			{ID: 2, User: "anna", Name: "app", PoolMode: "transaction", Waiting: 3500 * time.Millisecond, Cancels: 1},
			{ID: 3, User: "anna", Name: "app", PoolMode: "transaction", Waiting: 200 * time.Millisecond},
			{ID: 4, User: "bert", Name: "report", PoolMode: "session"},
		},
		Servers: []Server{
			{User: "anna", Name: "app", Cluster: "main", Node: "pg-a", PID: 10, Leased: true, Client: 1},
			{User: "anna", Name: "app", Cluster: "main", Node: "pg-b", PID: 11},
			{User: "cleo", Name: "app", Cluster: "main", Node: "pg-b", PID: 12},
		},
		Pools: []Pool{
			{Name: "app", Cluster: "main", Node: "pg-a", Database: "app", User: "anna", Size: 20, Leased: 1, Opening: 1, Waiting: 2},
			{Name: "app", Cluster: "main", Node: "pg-b", Database: "app", User: "anna", Size: 20, Idle: 1, Opening: 1},
		},
	}
	want := [][]string{
		{"app", "anna", "1", "2", "1", "0", "1", "1", "0", "1", "0", "0", "2", "3", "500000", "transaction"},
		{"app", "cleo", "0", "0", "0", "0", "0", "0", "0", "1", "0", "0", "0", "0", "0", "transaction"},
		{"report", "bert", "1", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "session"},
	}
	if got := rows(t, c, "SHOW POOLS"); !equalRows(got, want) {
		t.Errorf("SHOW POOLS says\n%v, wanted\n%v", got, want)
	}
	if got := rows(t, c, "SHOW LISTS"); got[2][1] != "3" || got[4][1] != "4" || got[7][1] != "3" {
		t.Errorf("SHOW LISTS says %v", got)
	}
	if got := rows(t, c, "who 10"); len(got) != 1 || got[0][4] != "1" || got[0][3] != "active" {
		t.Errorf("WHO 10 says %v", got)
	}
	if got := rows(t, c, "WHO 12"); len(got) != 1 || got[0][4] != "∅" || got[0][3] != "idle" {
		t.Errorf("WHO of an idle connection says %v", got)
	}
	for name := range tables() {
		rows(t, c, "SHOW "+name)
	}
}

// equalRows compares tables.
func equalRows(a, b [][]string) bool {
	return slices.EqualFunc(a, b, func(x, y []string) bool { return slices.Equal(x, y) })
}

func TestAverages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := newFixed(t)
		use := func(u Usage) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.state.Databases = []Database{{Name: "app", Usage: u}}
		}
		use(Usage{Transactions: 1000, Queries: 3000, InQuery: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = c.Run(ctx) }()
		synctest.Wait()
		none := []string{"app", "0", "0", "0", "0", "0", "0", "0"}
		if got := rows(t, c, "SHOW STATS_AVERAGES"); !slices.Equal(got[0], none) {
			t.Errorf("before a period is over: %v", got)
		}
		time.Sleep(59 * time.Second)
		use(Usage{
			Transactions: 1600, Queries: 4200, Received: 60_000, Sent: 600_000, InTransaction: 6 * time.Second, InQuery: 7 * time.Second, Waited: time.Minute / 2,
		})
		time.Sleep(time.Second)
		synctest.Wait()
		// 600 transactions of 10 ms, 1200 queries of 5 ms, half of the time spent waiting.
		want := []string{"app", "10", "20", "1000", "10000", "10000", "5000", "500000"}
		if got := rows(t, c, "SHOW STATS_AVERAGES"); !slices.Equal(got[0], want) {
			t.Errorf("after a period: %v, wanted %v", got[0], want)
		}
		if got := rows(t, c, "SHOW STATS"); got[0][1] != "1600" || got[0][8] != "10" || got[0][15] != "4200" {
			t.Errorf("SHOW STATS: %v", got)
		}
		if got := rows(t, c, "SHOW TOTALS"); got[0][1] != "1600" || got[7][1] != "10" || got[11][1] != "10000" {
			t.Errorf("SHOW TOTALS: %v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := rows(t, c, "SHOW STATS_AVERAGES"); !slices.Equal(got[0], none) {
			t.Errorf("after a period in which nothing happened: %v", got)
		}
	})
}

func TestOrders(t *testing.T) {
	for text, want := range map[string][]Order{
		"PAUSE":                          {{Verb: Pause}},
		"pause app;":                     {{Verb: Pause, Database: "app"}},
		`PAUSE "two words"`:              {{Verb: Pause, Database: "two words"}},
		`PAUSE 'it''s'`:                  {{Verb: Pause, Database: "it's"}},
		"Resume App -- as it is written": {{Verb: Resume, Database: "App"}},
		";; /* x */ PAUSE;RESUME ; ":     {{Verb: Pause}, {Verb: Resume}},
		"DISABLE app":                    {{Verb: Disable, Database: "app"}},
		"ENABLE app":                     {{Verb: Enable, Database: "app"}},
		"RECONNECT":                      {{Verb: Reconnect}},
		"KILL app":                       {{Verb: Kill, Database: "app"}},
		"KILL_CLIENT 8388609":            {{Verb: KillClient, Client: 8388609}},
		"RELOAD":                         {{Verb: Reload}},
		"SHUTDOWN":                       {{Verb: Shutdown}},
		"SHUTDOWN wait_for_servers":      {{Verb: Shutdown, Wait: WaitServers}},
		"SHUTDOWN WAIT_FOR_CLIENTS":      {{Verb: Shutdown, Wait: WaitClients}},
		"":                               nil,
		"  ;;":                           nil,
	} {
		c, f := newFixed(t)
		commands, err := c.Read("root", RoleAdmin, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, cmd := range commands {
			if r, err := cmd.Run(t.Context()); err != nil || cmd.Columns != nil || r.Tag == "" {
				t.Errorf("%s: %+v, %v", text, r, err)
			}
		}
		if !slices.Equal(f.orders, want) {
			t.Errorf("%s: %v was carried out, wanted %v", text, f.orders, want)
		}
		if len(want) == 0 {
			continue
		}
		if _, err := c.Read("eve", RoleStats, text); codeOf(err) != codeForbidden {
			t.Errorf("%s by a stats user: %v", text, err)
		}
	}
}

// codeOf is the SQLSTATE of an Error, "" for anything else.
func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestNotUnderstood(t *testing.T) {
	c, f := newFixed(t)
	for _, text := range []string{
		"SELECT 1", "SHOW", "SHOW nothing", "SHOW POOLS app", `"PAUSE"`, "PAUSE a b", `PAUSE ""`, "KILL", "DISABLE", "KILL_CLIENT", "KILL_CLIENT x", "KILL_CLIENT -1",
		"KILL_CLIENT 99999999999", "RELOAD now", "SHUTDOWN NOW", "WHO", "WHO x", "WHO 1 a b", "HELP me", "PAUSE; SELECT 1", "PAUSE 'x", "/* x", "SET x = 1",
	} {
		if _, err := c.Read("root", RoleAdmin, text); codeOf(err) != codeSyntax {
			t.Errorf("%s: %v", text, err)
		}
	}
	if len(f.orders) > 0 {
		t.Errorf("something was carried out: %v", f.orders)
	}
	f.fails = errors.New("no")
	commands, err := c.Read("root", RoleAdmin, "RELOAD")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := commands[0].Run(t.Context()); !errors.Is(err, f.fails) {
		t.Errorf("an order that fails: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"SHOW POOLS", `PAUSE "a""b"; RESUME 'c'`, "-- x\nKILL x /* y */;", "WHO 1 \"pg-a\"", "'", "/*", "a,b=c"} {
		f.Add(s)
	}
	c, err := New(Config{Source: &fixed{}, Control: &fixed{}, Period: time.Minute})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		commands, err := c.Read("u", RoleAdmin, text)
		if err != nil {
			if codeOf(err) == "" {
				t.Errorf("%q: an error without a SQLSTATE: %v", text, err)
			}
			return
		}
		if n := strings.Count(text, ";") + 1; len(commands) > n {
			t.Errorf("%q: %d commands in %d pieces", text, len(commands), n)
		}
	})
}

// TestDatabasesOfOneName: no two rows of SHOW DATABASES have the same database, whatever their names lead to.
func TestDatabasesOfOneName(t *testing.T) {
	c, f := newFixed(t)
	f.state.Databases = []Database{
		{Name: "twin", Cluster: "shop", Database: "app"}, {Name: "app", Cluster: "shop", Database: "app"}, {Name: "far", Cluster: "ledger", Database: "app"},
	}
	var got []string
	for _, row := range rows(t, c, "SHOW DATABASES") {
		got = append(got, strings.Join([]string{row[0], row[3], row[13], row[14]}, " "))
	}
	if want := []string{"app app shop app", "far far ledger app", "twin twin shop app"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTimeouts: SHOW TIMEOUTS has a row for each cluster and limit.
func TestTimeouts(t *testing.T) {
	c, f := newFixed(t)
	f.state.Timeouts = []Timeout{{Cluster: "b", Limit: "query_timeout", Clients: 3}, {Cluster: "a", Limit: "client_lifetime"}}
	if got, want := fmt.Sprint(rows(t, c, "SHOW TIMEOUTS")), "[[a client_lifetime 0] [b query_timeout 3]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
