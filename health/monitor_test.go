package health

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonitorFailover: crash, promotion by somebody else, the old primary back, and back in line.
func TestMonitorFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(10 * time.Millisecond)
		r.expect(t, "a")
		epoch := r.Snapshot().Epoch
		r.nodes["a"].crash()
		r.Report(r.Snapshot().Named("a").ID, EvidenceBroken)
		if s := r.after(50 * time.Millisecond); s.Named("a").State != StateDown {
			t.Fatalf("two refused connections are not enough: %s %s", s.Named("a").State, s.Named("a").Detail)
		}
		r.expect(t, "")
		for _, n := range r.Snapshot().Nodes[1:] {
			if n.State != StateUp || !n.Trusted(Clock()) {
				t.Errorf("reads stopped on %s: %s %s", n.Name, n.State, n.Detail)
			}
		}
		r.after(time.Second)
		r.nodes["b"].promote()
		r.after(20 * time.Millisecond)
		r.expect(t, "b")
		if s := r.Snapshot(); s.Epoch != epoch+1 || s.Timeline != 2 || s.Named("c").State != StateLagging {
			t.Fatalf("epoch %d after %d, timeline %d, c %s: a standby of the old line must not read", s.Epoch, epoch, s.Timeline, s.Named("c").State)
		}
		r.after(300 * time.Millisecond)
		if n := r.happened(EventQuarantined); n != 0 {
			t.Errorf("%d quarantine events about a node that is down", n)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.refuse, f.start = nil, 2 })
		if s := r.after(500 * time.Millisecond); s.Named("a").Role != RoleOther || !strings.Contains(s.Named("a").Detail, "quarantined") {
			t.Fatalf("old primary: %s %s", s.Named("a").Role, s.Named("a").Detail)
		}
		r.expect(t, "b")
		if n := r.happened(EventQuarantined); n != 1 {
			t.Errorf("%d quarantine events", n)
		}
		r.nodes["c"].set(func(f *fakeNode) { f.timeline, f.follows = 2, 2 })
		if s := r.after(300 * time.Millisecond); s.Named("c").State != StateUp {
			t.Fatalf("c follows: %s %s", s.Named("c").State, s.Named("c").Detail)
		}
		if r.Snapshot().Epoch != epoch+1 || r.happened(EventPrimaryChanged) != 2 {
			t.Errorf("epoch %d, %d changes", r.Snapshot().Epoch, r.happened(EventPrimaryChanged))
		}
	})
}

// TestMonitorHang: silence takes trust after the window, the state after fall probes, and stops no
// other node's probes; one answer gives everything back and wakes who waits.
func TestMonitorHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		r.expect(t, "a")
		a := r.Snapshot().Named("a")
		r.nodes["a"].set(func(f *fakeNode) { f.hung = true })
		r.after(701 * time.Millisecond)
		if a.Trusted(Clock()) {
			t.Fatal("trusted after the window")
		}
		if s := r.Snapshot(); s.Primary != nil || s.Named("a").State != StateSuspect {
			t.Fatalf("primary %v, a %s", s.Primary, s.Named("a").State)
		}
		if !r.Snapshot().Named("b").Trusted(Clock()) {
			t.Fatal("the stuck probe blocks another node's")
		}
		if s := r.after(1500 * time.Millisecond); s.Named("a").State != StateDown {
			t.Fatalf("a is %s after three silent probes", s.Named("a").State)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.hung = false })
		wake := r.Changed()
		r.after(time.Second)
		r.expect(t, "a")
		select {
		case <-wake:
		default:
			t.Error("who waits was not woken")
		}
		if s := r.Snapshot(); s.Epoch != 1 {
			t.Errorf("epoch %d: the primary never changed", s.Epoch)
		}
	})
}

// TestMonitorFlap: a node that answers every other time neither changes the epoch nor stays trusted
// without evidence, and a login that fails is no death.
func TestMonitorFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), nil)
		defer r.stop()
		r.after(time.Second)
		for range 20 {
			r.nodes["a"].set(func(f *fakeNode) { f.epoch++; f.refuse = syscall.ECONNRESET })
			r.after(150 * time.Millisecond)
			r.nodes["a"].set(func(f *fakeNode) { f.refuse = nil })
			r.after(250 * time.Millisecond)
		}
		r.after(time.Second)
		r.expect(t, "a")
		if s := r.Snapshot(); s.Epoch != 1 {
			t.Errorf("epoch %d", s.Epoch)
		}
		r.nodes["a"].set(func(f *fakeNode) { f.epoch++; f.refuse = &loginError{errors.New("no password")} })
		s := r.after(10 * time.Second)
		if n := s.Named("a"); n.State != StateSuspect || n.Trusted(Clock()) {
			t.Errorf("after failed logins: %s, trusted %v", n.State, n.Trusted(Clock()))
		}
	})
}

// TestMonitorStopped: evidence dies with the clock alone, and late replies are none.
func TestMonitorStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, trio(), func(c *Config) { c.ProbeTimeout = 5 * time.Second })
		defer r.stop()
		r.after(time.Second)
		s := r.Snapshot()
		if !s.Primary.Trusted(Clock()) || s.Primary.Trusted(Clock()+int64(DefaultTrustWindow)+int64(250*time.Millisecond)) {
			t.Fatal("trust does not follow the clock")
		}
		r.nodes["a"].set(func(f *fakeNode) { f.delay = 600 * time.Millisecond })
		before := s.Primary.Live.Fresh()
		r.after(3 * time.Second)
		if s.Primary.Trusted(Clock()) {
			t.Error("a reply that took longer than the window counts")
		}
		if got := s.Primary.Live.Fresh(); got.AsOf > before.AsOf+1 {
			t.Errorf("late samples count: %+v after %+v", got, before)
		}
	})
}
