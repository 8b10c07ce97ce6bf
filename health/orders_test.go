package health

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonitorOrders: what people say, and the errors for what makes no sense.
func TestMonitorOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			r.after(300 * time.Millisecond)
		}
		ok(r.Drain("b"))
		if n := r.Snapshot().Named("b"); n.State != StateDraining || n.Detail != "draining" {
			t.Errorf("drained: %s %s", n.State, n.Detail)
		}
		ok(r.Undrain("b"))
		if n := r.Snapshot().Named("b"); n.State != StateUp {
			t.Errorf("undrained: %s", n.State)
		}
		ok(r.Quarantine("a"))
		r.expect(t, "")
		ok(r.Accept("a"))
		r.expect(t, "a")
		// Split brain, and a person's way out of it.
		r.nodes["b"].set(func(f *fakeNode) { f.recovery, f.flush, f.forks = false, 1000, true })
		r.after(500 * time.Millisecond)
		r.expect(t, "")
		if !r.Snapshot().SplitBrain || r.happened(EventSplitBrain) != 1 {
			t.Errorf("split brain %v", r.Snapshot().SplitBrain)
		}
		ok(r.Accept("b"))
		r.expect(t, "b")
		if n := r.Snapshot().Named("a"); n.Role != RoleOther || r.Snapshot().SplitBrain || r.happened(EventSplitBrainOver) != 1 {
			t.Errorf("the other one: %s %s", n.Role, n.Detail)
		}
		for _, err := range []error{r.Drain("x"), r.Forget("a"), r.Forget("x"), r.Accept("x")} {
			if err == nil {
				t.Error("an order that makes no sense was taken")
			}
		}
		// A new system identifier, as after pg_upgrade.
		for _, n := range r.nodes {
			n.set(func(f *fakeNode) { f.system, f.epoch = 42, f.epoch+1; f.start = 9 })
		}
		r.nodes["a"].set(func(f *fakeNode) {
			f.observation = fakeStandby(1).observation
			f.system, f.start = 42, 9
		})
		r.after(time.Second)
		r.expect(t, "")
		if why := r.Snapshot().Why; !strings.Contains(why, "42") || !strings.Contains(why, "7000") {
			t.Errorf("why lacks an identifier: %s", why)
		}
		ok(r.AdoptCluster())
		r.expect(t, "b")
	})
}

// TestMonitorAcceptOlder: a person may insist on a primary that a standby has left.
func TestMonitorAcceptOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := startRig(t, trio(), func(c *Config) { c.StateDir = dir })
		defer r.stop()
		r.after(time.Second)
		r.nodes["c"].set(func(f *fakeNode) { f.timeline, f.follows = 2, 2 })
		r.after(time.Second)
		r.expect(t, "")
		if why := r.Snapshot().Why; !strings.Contains(why, "c follows timeline 2") {
			t.Errorf("why: %s", why)
		}
		if err := r.Accept("a"); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.expect(t, "a")
		if n := r.Snapshot().Named("c"); n.State != StateLagging {
			t.Errorf("c: %s", n.State)
		}
		// An order about a node that dies before it is carried out does not wait for its return.
		if err := r.AdoptCluster(); err != nil {
			t.Fatal(err)
		}
		r.after(300 * time.Millisecond)
		m, err := r.store.load()
		if err != nil || m.Node == "" && m.Timeline != 0 {
			t.Errorf("memory after ADOPT CLUSTER: %+v %v", m, err)
		}
	})
}
