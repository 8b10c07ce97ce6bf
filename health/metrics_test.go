package health

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestMonitorMetrics: the names of interface.md, counters from zero, series of forgotten nodes gone.
func TestMonitorMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	m.begin("x")
	if n := testutil.ToFloat64(m.changes.WithLabelValues("x")); n != 0 {
		t.Errorf("starts at %v", n)
	}
	s := &Snapshot{Cluster: "x", Nodes: []*Node{{ID: 1, Name: "n", Role: RoleStandby, State: StateUp, Timeline: 3, LagBytes: 7, LagTime: 2 * time.Second}}, SplitBrain: true}
	m.measure(s, map[int]time.Duration{1: 1500 * time.Millisecond})
	want := `
# HELP pgweir_node_role 1 for the role that the node has, 0 for the others.
# TYPE pgweir_node_role gauge
pgweir_node_role{cluster="x",node="n",role="other"} 0
pgweir_node_role{cluster="x",node="n",role="primary"} 0
pgweir_node_role{cluster="x",node="n",role="standby"} 1
pgweir_node_role{cluster="x",node="n",role="unknown"} 0
# HELP pgweir_node_fresh_age_seconds Age of the primary's sample that the node has replayed, -1 while it vouches for nothing.
# TYPE pgweir_node_fresh_age_seconds gauge
pgweir_node_fresh_age_seconds{cluster="x",node="n"} 1.5
# HELP pgweir_split_brain 1 while several members are writable and neither follows from the other.
# TYPE pgweir_split_brain gauge
pgweir_split_brain{cluster="x"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "pgweir_node_role", "pgweir_node_fresh_age_seconds", "pgweir_split_brain"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	m.forget("x", "n")
	if n := testutil.CollectAndCount(m.role); n != 0 {
		t.Errorf("%d series of a forgotten node", n)
	}
}
