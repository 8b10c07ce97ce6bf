package health

import (
	"testing"
	"time"
)

// TestFailures: what each kind of missed probe proves.
func TestFailures(t *testing.T) {
	cfg := DefaultConfig()
	for _, c := range []struct {
		name  string
		kind  failKind
		down  int // after how many misses it is down, 0 for never
		hosts bool
	}{
		{"silence", failTimeout, 3, false},
		{"refused", failRefused, 2, true},
		{"unready", failUnready, 3, true},
		{"login", failLogin, 0, true},
		{"name", failName, 0, false},
		{"broken", failBroken, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := node("n", writes(1))
			f.contact = 0
			for i := 1; i <= 10; i++ {
				f.failed(failure{c.kind, c.name}, cfg.Fall, at)
				want := StateSuspect
				if c.down != 0 && i >= c.down {
					want = StateDown
				}
				if got := f.health(at, &cfg); got != want {
					t.Fatalf("%s after %d", got, i)
				}
			}
			if (f.contact == at) != c.hosts {
				t.Errorf("host seen: %v", f.contact == at)
			}
			if c.down == 0 {
				return
			}
			o := *f.obs
			f.answered(&o, cfg.Rise, at)
			if got := f.health(at, &cfg); got != StateDown {
				t.Errorf("%s after one answer", got)
			}
			f.answered(&o, cfg.Rise, at)
			if got := f.health(at, &cfg); got != StateUp {
				t.Errorf("%s after two answers", got)
			}
		})
	}
}

// TestShow: evidence counts for the role that traffic was told, and an end of distrust wakes.
func TestShow(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Cluster = "x"
	b := newBook(&cfg, at)
	b.set([]NodeConfig{{Host: "a", Port: 1}}, at)
	f := b.nodes[0]
	sight := func(sent int64, recovery bool) {
		b.answered(f.id, &observation{sent: sent, system: ours, recovery: recovery, timeline: 1, start: 1, can: allCapabilities}, sent)
	}
	sight(at, true)
	if !b.wake || f.live.Evidence() != at {
		t.Fatalf("first answer: wake %v, evidence %d", b.wake, f.live.Evidence())
	}
	settle := func() { b.settle(b.snapshot(decide(b.inquiry(at)), at, new(Fence))) }
	settle()
	later := at + int64(100*time.Millisecond)
	sight(later, true)
	if b.wake || f.live.Evidence() != later {
		t.Fatalf("another answer: wake %v, evidence %d", b.wake, f.live.Evidence())
	}
	sight(later+1, false)
	if f.live.Evidence() != 0 {
		t.Fatal("traffic thinks it is a standby, and trusts it")
	}
	settle()
	if f.live.Evidence() != later+1 || f.shown == RoleStandby {
		t.Fatalf("told: evidence %d, %s", f.live.Evidence(), f.shown)
	}
	if b.sampled(f.id, sample{sent: later + 2, recovery: true}, later+2) || f.live.Evidence() != 0 {
		t.Fatal("a sample that contradicts the role leaves it trusted")
	}
	sight(later+int64(time.Second), false)
	if !b.wake {
		t.Fatal("nobody was woken")
	}
}

// TestRival: only a node that was writable while the primary answered is one for good.
func TestRival(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Cluster = "x"
	b := newBook(&cfg, at)
	b.set([]NodeConfig{{Host: "a", Port: 1, Weight: 1}, {Host: "b", Port: 1, Weight: 1}}, at)
	b.line = line{System: ours, Timeline: 1, Node: "a:1", primary: 1}
	see := func(id int, sent int64) {
		b.answered(id, &observation{sent: sent, system: ours, timeline: 1, start: 1, flush: 10, forks: true, can: allCapabilities}, sent)
		b.commit(decide(b.inquiry(sent)), sent)
	}
	see(1, at)
	see(2, at+10)
	if b.nodes[1].rival {
		t.Fatal("the primary has not answered since")
	}
	see(1, at+20)
	if !b.nodes[1].rival {
		t.Fatal("both answered, in turn")
	}
	b.answered(2, &observation{sent: at + 30, system: ours, timeline: 1, start: 2, recovery: true, can: allCapabilities}, at+30)
	if b.nodes[1].rival {
		t.Fatal("a standby is none")
	}
}
