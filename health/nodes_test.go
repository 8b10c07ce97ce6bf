package health

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonitorNodes: a reload keeps what stays, drains what goes, and forgets it later.
func TestMonitorNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		nodes["d"] = nil
		r := startRig(t, nodes, nil)
		defer r.stop()
		r.after(time.Second)
		ids := map[string]int{}
		for _, n := range r.Snapshot().Nodes {
			ids[n.Name] = n.ID
		}
		nodes["d"] = fakeStandby(1)
		list := []NodeConfig{
			{Name: "d", Host: "d", Port: 5432, Weight: 1},
			{Name: "first", Host: "a", Port: 5432, Weight: 3, Zone: "z", Tags: []string{"y", "x"}},
			{Name: "b", Host: "b", Port: 5432},
		}
		if err := r.SetNodes(append(list, list[0])); err == nil {
			t.Error("a doubled node was taken")
		}
		if err := r.SetNodes(list); err != nil {
			t.Fatal(err)
		}
		s := r.after(time.Second)
		first := s.Named("first")
		if first == nil || first.ID != ids["a"] || first.Weight != 3 || first.Zone != "z" || !slices.Equal(first.Tags, []string{"x", "y"}) || s.Primary != first {
			t.Fatalf("renamed: %+v", first)
		}
		if n := s.Named("d"); n == nil || n.State != StateUp || s.Nodes[0] != n {
			t.Errorf("new: %+v", n)
		}
		if n := s.Named("c"); n == nil || n.State != StateDraining {
			t.Errorf("gone: %+v", n)
		}
		if s.Epoch != 1 {
			t.Errorf("epoch %d", s.Epoch)
		}
		s = r.after(11 * time.Minute)
		if s.Named("c") != nil {
			t.Error("never forgotten")
		}
		if err := r.SetNodes(append(list, NodeConfig{Name: "c", Host: "c", Port: 5432, Weight: 1})); err != nil {
			t.Fatal(err)
		}
		if n := r.after(time.Second).Named("c"); n == nil || n.State != StateUp || n.ID == ids["c"] {
			t.Errorf("back: %+v, it was %d", n, ids["c"])
		}
	})
}

// TestMonitorSeveral: an address behind which connections meet different servers is refused.
func TestMonitorSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio()
		nodes["c"].starts = []int64{100, 200}
		r := startRig(t, nodes, nil)
		defer r.stop()
		s := r.after(20 * time.Second)
		n := s.Named("c")
		if n.State != StateDown || !strings.Contains(n.Detail, "several servers") || !strings.Contains(n.Detail, "dns://c:5432") || r.happened(EventSeveral) != 1 {
			t.Fatalf("%s %s, %d events", n.State, n.Detail, r.happened(EventSeveral))
		}
		r.expect(t, "a")
		// A restart is not that.
		nodes["b"].crash()
		r.after(time.Second)
		nodes["b"].set(func(f *fakeNode) { f.refuse, f.start = nil, 2 })
		if n := r.after(20 * time.Second).Named("b"); n.State != StateUp {
			t.Errorf("after a restart: %s %s", n.State, n.Detail)
		}
	})
}
