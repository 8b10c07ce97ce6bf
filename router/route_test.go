package router

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgweir/health"
)

// testNow is the moment of the route tests; nodes were heard of just before.
const testNow = int64(time.Hour)

// testNode makes a node that may be trusted at testNow.
func testNode(id int, role health.Role, f health.Freshness) *health.Node {
	return &health.Node{
		ID: id, Name: fmt.Sprintf("pg-%c", 'a'+id), Role: role, State: health.StateUp, Weight: 1,
		LagBytes: 100, LagTime: time.Millisecond, Live: health.NewLive(f, testNow-1),
	}
}

// testCluster is a primary and two standbys that are fresh as of 10.
func testCluster() *health.Snapshot {
	p := testNode(0, health.RolePrimary, health.Freshness{AsOf: 10, Incarnation: 1})
	a := testNode(1, health.RoleStandby, health.Freshness{AsOf: 10, Incarnation: 1})
	b := testNode(2, health.RoleStandby, health.Freshness{AsOf: 10, Incarnation: 1})
	return &health.Snapshot{Cluster: "main", Epoch: 1, Primary: p, Nodes: []*health.Node{p, a, b}, Positions: true}
}

// unitOf classifies a text in the golden database.
func unitOf(text string) *Unit {
	u, _ := parse([]byte(text), &Env{Database: "shop", Catalog: shopCatalog(), StdStrings: true, Path: shopPath}, nil)
	return withHint(u, leadingHint([]byte(text)))
}

func TestRoute(t *testing.T) {
	const (
		read    = "SELECT * FROM t"
		write   = "INSERT INTO t VALUES (1)"
		doubt   = "SELECT volatile_fn()"
		node    = "SELECT pg_is_in_recovery()"
		advice  = "SELECT pg_advisory_lock(1)"
		setting = "SET work_mem = 1"
	)
	auto := View{Offloaded: true, FreshnessWait: 10 * time.Millisecond}
	for _, r := range []struct {
		name string
		text string
		view func(*View)
		snap func(*health.Snapshot)
		want string
	}{
		{"a read", read, nil, nil, "standby read"},
		{"a write", write, nil, nil, "primary write"},
		{"doubt", doubt, nil, nil, "primary volatile"},
		{"a session statement", setting, nil, nil, "primary session"},
		{"a session statement with a standby at hand", setting, func(v *View) { v.Held = testCluster().Nodes[1] }, nil, "primary session"},
		{"SHOW pgweir.x", "SHOW pgweir.last_route", nil, nil, "local session"},

		{"route primary", read, func(v *View) { v.Mode = RoutePrimary }, nil, "primary route_primary"},
		{"route primary, standby hint", "/* pgweir: standby */" + read, func(v *View) { v.Mode = RoutePrimary }, nil, "standby hint"},
		{"route primary, auto hint", "/* pgweir: auto */" + read, func(v *View) { v.Mode = RoutePrimary }, nil, "standby read"},
		{"route shadow", read, func(v *View) { v.Mode = RouteShadow }, nil, "primary shadow"},
		{"route shadow, standby hint", "/* pgweir: standby */" + read, func(v *View) { v.Mode = RouteShadow }, nil, "primary shadow"},
		{"route standby", read, func(v *View) { v.Mode = RouteStandby; v.Offloaded = false }, nil, "standby read"},
		{"route standby, doubt", doubt, func(v *View) { v.Mode = RouteStandby }, nil, "standby read"},
		{"route standby, a write", write, func(v *View) { v.Mode = RouteStandby }, nil, "local hint_refused 25006"},
		{"route standby, advisory", advice, func(v *View) { v.Mode = RouteStandby }, nil, "primary hint_refused"},
		{"route standby, primary hint", "/* pgweir: primary */" + write, func(v *View) { v.Mode = RouteStandby }, nil, "primary write"},
		{"listener standby, primary hint", "/* pgweir: primary */" + read, func(v *View) { v.ListenerMode = RouteStandby }, nil, "standby read"},
		{"listener standby, auto hint, a write", "/* pgweir: auto */" + write, func(v *View) { v.ListenerMode = RouteStandby }, nil, "local hint_refused 25006"},
		{"outside of the offload", read, func(v *View) { v.Offloaded = false }, nil, "primary offload"},
		{"outside of the offload, hint", "/* pgweir: standby */" + read, func(v *View) { v.Offloaded = false }, nil, "standby hint"},

		{"primary hint", "/* pgweir: primary */" + read, nil, nil, "primary hint"},
		{"standby hint, doubt", "/* pgweir: standby */" + doubt, nil, nil, "standby hint"},
		{"standby hint, node-local", "/* pgweir: standby */" + node, nil, nil, "standby hint"},
		{"standby hint, a write", "/* pgweir: standby */" + write, nil, nil, "local hint_refused 25006"},
		{"standby hint, locking", "/* pgweir: standby */ SELECT 1 FOR UPDATE", nil, nil, "local hint_refused 25006"},
		{"standby hint, advisory", "/* pgweir: standby */" + advice, nil, nil, "primary hint_refused"},
		{"standby hint, unlogged", "/* pgweir: standby */ SELECT * FROM cache", nil, nil, "primary hint_refused"},
		{"session hint", read, func(v *View) { v.SessionHint = HintPrimary }, nil, "primary hint"},
		{"comment above session hint", "/* pgweir: standby */" + read, func(v *View) { v.SessionHint = HintPrimary }, nil, "standby hint"},
		{"SET LOCAL above comment", "/* pgweir: standby */" + read, func(v *View) { v.LocalHint = HintPrimary }, nil, "primary hint"},
		{"auto above session hint", "/* pgweir: auto */" + read, func(v *View) { v.SessionHint = HintPrimary }, nil, "standby read"},
		{"override primary", "/* pgweir: standby */" + read, func(v *View) { v.Override, v.Mode = true, RoutePrimary }, nil, "primary override"},
		{"override auto", "/* pgweir: primary */" + read, func(v *View) { v.Override = true }, nil, "standby override"},
		{"override standby", doubt, func(v *View) { v.Override, v.Mode = true, RouteStandby }, nil, "standby override"},

		{"pinned", read, func(v *View) { v.Pinned = PinTemp }, nil, "primary pinned"},
		{"pinned, hint", "/* pgweir: standby */" + read, func(v *View) { v.Pinned = PinOpaque }, nil, "primary pinned"},
		{"pinned by LISTEN", read, func(v *View) { v.Pinned = PinListen }, nil, "standby read"},
		{"pinned by a sequence", read, func(v *View) { v.Pinned = PinSequence }, nil, "standby read"},
		{"pinned, session statement", setting, func(v *View) { v.Pinned = PinTemp }, nil, "primary pinned"},
		{"serializable", read, func(v *View) { v.Serializable = true }, nil, "primary serializable"},
		{"serializable, hint", "/* pgweir: standby */" + read, func(v *View) { v.Serializable = true }, nil, "primary hint_refused"},
		{"encoding", read, func(v *View) { v.UnsafeEncoding = true }, nil, "primary encoding"},
		{"BEGIN with a read", "BEGIN; SELECT 1", nil, nil, "primary transaction"},
		{"BEGIN with a read, read-only by default", "BEGIN; SELECT 1", func(v *View) { v.ReadOnly = true }, nil, "standby read"},
		{"BEGIN READ WRITE, read-only by default", "BEGIN READ WRITE; SELECT 1", func(v *View) { v.ReadOnly = true }, nil, "primary transaction"},
		{"BEGIN with a write, read-only by default", "BEGIN; DELETE FROM t", func(v *View) { v.ReadOnly = true }, nil, "primary write"},

		{"stale, soon fresh", read, func(v *View) { v.Need = 10 }, nil, "wait fresh not_fresh"},
		{"stale, waited", read, func(v *View) { v.Need = 10; v.FreshnessWait = 0 }, nil, "primary not_fresh"},
		{"stale, waiting is in vain", read, func(v *View) { v.Need = 10 }, func(s *health.Snapshot) {
			s.Nodes[1].LagTime, s.Nodes[2].LagTime = time.Second, time.Second
		}, "primary not_fresh"},
		{"stale, never on the primary", read, func(v *View) { v.Need = 10; v.FreshnessWait = 0; v.OnPrimary = ReadsNever }, nil, "wait standby not_fresh"},
		{"nothing vouched for", read, nil, func(s *health.Snapshot) {
			s.Nodes[1].Live, s.Nodes[2].Live = health.NewLive(health.Freshness{}, testNow-1), health.NewLive(health.Freshness{}, testNow-1)
		}, "wait fresh not_fresh"},
		{"eventual", read, func(v *View) { v.Need = 10; v.Consistency = ConsistencyEventual; v.MaxLagBytes = 1000 }, nil, "standby read"},
		{"eventual, beyond max_lag", read, func(v *View) { v.Consistency = ConsistencyEventual; v.MaxLagBytes = 10 }, nil, "primary not_fresh"},
		{"eventual, beyond max_lag in time", read, func(v *View) { v.Consistency = ConsistencyEventual; v.MaxLagTime = time.Microsecond }, nil, "primary not_fresh"},
		{"eventual, lag not known", read, func(v *View) { v.Consistency = ConsistencyEventual; v.MaxLagBytes = 1000 }, func(s *health.Snapshot) {
			s.Nodes[1].LagBytes, s.Nodes[2].LagBytes = -1, -1
		}, "primary not_fresh"},

		{"no standby", read, nil, func(s *health.Snapshot) { s.Nodes = s.Nodes[:1] }, "primary no_standby"},
		{"no standby, never on the primary", read, func(v *View) { v.OnPrimary = ReadsNever }, func(s *health.Snapshot) { s.Nodes = s.Nodes[:1] }, "wait standby no_standby"},
		{"standbys down", read, nil, func(s *health.Snapshot) {
			s.Nodes[1].State, s.Nodes[2].State = health.StateDown, health.StateLagging
		}, "primary no_standby"},
		{"standbys of weight 0 and reads: false", read, nil, func(s *health.Snapshot) { s.Nodes[1].Weight = 0; s.Nodes[2].NoReads = true }, "primary no_standby"},
		{"standbys not trusted", read, nil, func(s *health.Snapshot) {
			for _, n := range s.Nodes[1:] {
				n.Live = health.NewLive(n.Live.Fresh(), testNow-int64(time.Minute))
			}
		}, "primary no_standby"},
		{"tags", read, func(v *View) { v.ReadFrom = []string{"bi"} }, nil, "primary no_standby"},
		{"all tried", read, func(v *View) { v.Avoid = 1<<1 | 1<<2 }, nil, "primary no_standby"},
		{"no primary, a read", read, nil, func(s *health.Snapshot) { s.Primary = nil }, "standby read"},
		{"no primary, a write", write, nil, func(s *health.Snapshot) { s.Primary = nil }, "wait primary no_primary"},
		{"no primary, a session statement", setting, nil, func(s *health.Snapshot) { s.Primary = nil }, "standby session"},
		{"primary not trusted", write, nil, func(s *health.Snapshot) {
			s.Primary.Live = health.NewLive(health.Freshness{}, testNow-int64(time.Minute))
		}, "wait primary no_primary"},
		{"nobody, a read", read, nil, func(s *health.Snapshot) { s.Primary, s.Nodes = nil, nil }, "wait primary no_primary"},
	} {
		v, s := auto, testCluster()
		if r.view != nil {
			r.view(&v)
		}
		if r.snap != nil {
			r.snap(s)
		}
		if got := describeDecision(Route(unitOf(r.text), v, s, testNow)); got != r.want {
			t.Errorf("%s: %s, want %s", r.name, got, r.want)
		}
	}
}

// describeDecision is a decision in words.
func describeDecision(d Decision) string {
	s := d.Target.String() + " " + d.Reason.String()
	if d.Node == nil && d.Target == TargetNone {
		s = "wait " + [...]string{"none", "fresh", "primary", "standby"}[d.Wait] + " " + d.Reason.String()
	}
	if d.Refuse {
		s += " 25006"
	}
	if d.Unproven {
		s += " unproven"
	}
	return s
}

func TestReadYourOwnNode(t *testing.T) {
	s := testCluster()
	v := View{Offloaded: true, Need: 20, NeedOwn: 5, LastRead: s.Nodes[2], LastReadInc: 1}
	u := unitOf("SELECT * FROM t")
	if d := Route(u, v, s, testNow); d.Node != s.Nodes[2] {
		t.Errorf("the node of the last read is fresh enough for itself: %s", describeDecision(d))
	}
	v.LastReadInc = 2
	if d := Route(u, v, s, testNow); d.Target != TargetPrimary || d.Reason != ReasonNotFresh || !d.Unproven {
		t.Errorf("another incarnation: %s", describeDecision(d))
	}
	v.LastReadInc = 1
	v.NeedOwn = 10
	if d := Route(u, v, s, testNow); d.Target != TargetPrimary || !d.Unproven {
		t.Errorf("its own need: %s", describeDecision(d))
	}
	s.Nodes[2].Live = health.NewLive(health.Freshness{AsOf: 10, Incarnation: 1, Covered: 21}, testNow-1)
	v.LastRead = s.Nodes[2]
	if d := Route(u, v, s, testNow); d.Target != TargetPrimary || d.Unproven {
		t.Errorf("covered: %s", describeDecision(d))
	}
	v.LastReadInc = 2
	if d := Route(unitOf("INSERT INTO t VALUES (1)"), v, s, testNow); d.Unproven {
		t.Errorf("writes never wait: %s", describeDecision(d))
	}
	if d := Route(unitOf("SELECT version()"), v, s, testNow); !d.Unproven {
		t.Errorf("a read that only the primary may answer: %s", describeDecision(d))
	}
}

// share counts how many of n reads every node got.
func share(u *Unit, v View, s *health.Snapshot, n int) map[string]int {
	got := map[string]int{}
	for i := range n {
		d := Route(u, v, s, testNow+int64(i))
		if d.Node != nil {
			got[d.Node.Name]++
		}
	}
	return got
}

func TestBalance(t *testing.T) {
	u := unitOf("SELECT * FROM t")
	view := View{Offloaded: true}
	s := testCluster()
	if got := share(u, view, s, 1000); got["pg-b"] < 400 || got["pg-c"] < 400 || got["pg-a"] > 0 {
		t.Errorf("equals: %v", got)
	}
	s.Nodes[1].Weight = 3
	if got := share(u, view, s, 1000); got["pg-b"] < 700 || got["pg-c"] < 200 {
		t.Errorf("weights 3 and 1: %v", got)
	}
	s.Nodes[1].Live.Outstanding.Store(4)
	s.Nodes[2].Live.Outstanding.Store(1)
	if got := share(u, view, s, 100); got["pg-c"] != 100 {
		t.Errorf("4 outstanding at weight 3, 1 at weight 1: %v", got)
	}
	s.Nodes[1].Live.Outstanding.Store(2)
	if got := share(u, view, s, 100); got["pg-b"] != 100 {
		t.Errorf("2 outstanding at weight 3, 1 at weight 1: %v", got)
	}

	s = testCluster()
	v := view
	v.LastRead, v.LastReadInc = s.Nodes[2], 1
	if got := share(u, v, s, 100); got["pg-c"] != 100 {
		t.Errorf("the node of the last read: %v", got)
	}
	v.Held = s.Nodes[1]
	if got := share(u, v, s, 100); got["pg-b"] != 100 {
		t.Errorf("the lease at hand: %v", got)
	}
	s.Nodes[1].Live.Outstanding.Store(1)
	if got := share(u, v, s, 100); got["pg-c"] != 100 {
		t.Errorf("the lease at hand is busier: %v", got)
	}
	v.Sticky = true
	if got := share(u, v, s, 100); got["pg-b"] != 100 {
		t.Errorf("the lease at hand is busier, and the session keeps to it: %v", got)
	}
	s.Nodes[1].State = health.StateDown
	if got := share(u, v, s, 100); got["pg-c"] != 100 {
		t.Errorf("the node that the session keeps to is down: %v", got)
	}

	s = testCluster()
	s.Nodes[1].Zone, s.Nodes[2].Zone = "eu-1a", "eu-1b"
	v = view
	v.PreferZone = "eu-1b"
	s.Nodes[2].Live.Outstanding.Store(9)
	if got := share(u, v, s, 100); got["pg-c"] != 100 {
		t.Errorf("the zone: %v", got)
	}
	s.Nodes[2].State = health.StateDown
	if got := share(u, v, s, 100); got["pg-b"] != 100 {
		t.Errorf("the zone is down: %v", got)
	}

	s = testCluster()
	s.Nodes[1].Tags, s.Nodes[2].Tags = []string{"bi", "x"}, []string{"web"}
	v = view
	v.ReadFrom = []string{"bi"}
	if got := share(u, v, s, 100); got["pg-b"] != 100 {
		t.Errorf("tags: %v", got)
	}

	s = testCluster()
	v = view
	v.OnPrimary = ReadsShare
	if got := share(u, v, s, 3000); got["pg-a"] < 800 || got["pg-b"] < 800 || got["pg-c"] < 800 {
		t.Errorf("share: %v", got)
	}
	s.Primary.Live.Outstanding.Store(1)
	if got := share(u, v, s, 100); got["pg-a"] != 0 {
		t.Errorf("share with a busy primary: %v", got)
	}
}

func TestRouteAllocatesNothing(t *testing.T) {
	s := testCluster()
	v := View{Offloaded: true, ReadFrom: nil, LastRead: s.Nodes[1], LastReadInc: 1, Held: s.Nodes[2]}
	for _, text := range []string{"SELECT * FROM t", "INSERT INTO t VALUES (1)", "SET work_mem = 1", "/* pgweir: standby */ SELECT volatile_fn()"} {
		u := unitOf(text)
		if n := testing.AllocsPerRun(100, func() { Route(u, v, s, testNow) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func TestAvoidedNodes(t *testing.T) {
	s := testCluster()
	v := View{Offloaded: true, Avoid: 1 << 1}
	if got := share(unitOf("SELECT 1"), v, s, 100); got["pg-c"] != 100 {
		t.Errorf("one node was tried: %v", got)
	}
}

func TestClosedLists(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons() {
		if r.String() == "" || reasonTable[r].says == "" || seen[r.String()] {
			t.Errorf("reason %d is %q: %q", r, r, reasonTable[r].says)
		}
		seen[r.String()] = true
	}
	var pins []string
	for _, p := range Pins() {
		pins = append(pins, p.String())
	}
	if slices.Contains(pins, "") || slices.Contains(pins, "none") || len(pins) != int(pinCount)-1 {
		t.Errorf("pins %q", pins)
	}
}

func BenchmarkRoute(b *testing.B) {
	s := testCluster()
	v := View{Offloaded: true, LastRead: s.Nodes[1], LastReadInc: 1}
	u := unitOf("SELECT * FROM t")
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		Route(u, v, s, testNow+int64(i))
	}
}
