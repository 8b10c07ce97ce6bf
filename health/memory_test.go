package health

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonitorMemory: a line is written before it is shown, survives a restart, and a memory that
// cannot be written holds writes.
func TestMonitorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		withDir := func(c *Config) { c.StateDir = dir }
		r := startRig(t, trio(), withDir)
		r.after(time.Second)
		if _, err := os.Stat(filepath.Join(dir, "fake.json")); err != nil {
			t.Fatal(err)
		}
		r.nodes["b"].promote()
		r.after(100 * time.Millisecond)
		r.expect(t, "b")
		r.stop()

		// Started again, with the new primary gone: the old one alone is not believed.
		nodes := trio()
		nodes["b"].crash()
		nodes["c"].crash()
		r = startRig(t, nodes, withDir)
		r.after(time.Minute)
		r.expect(t, "")
		if s := r.Snapshot(); s.Timeline != 2 || !strings.Contains(s.Why, "quarantined") {
			t.Errorf("timeline %d, why %s", s.Timeline, s.Why)
		}
		r.stop()

		// The memory of members: c was a standby, so its promotion is accepted after a restart.
		nodes = trio()
		nodes["a"].crash()
		nodes["b"].crash()
		nodes["c"].set(func(f *fakeNode) { f.history = []fork{{1, 1000}}; f.timeline = 2 })
		nodes["c"].promote()
		r = startRig(t, nodes, withDir)
		defer r.stop()
		r.after(time.Second)
		r.expect(t, "c")
		if r.Snapshot().Timeline != 3 || r.Snapshot().Unconfirmed {
			t.Errorf("timeline %d, unconfirmed %v", r.Snapshot().Timeline, r.Snapshot().Unconfirmed)
		}

		away := dir + ".away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		nodes["a"].set(func(f *fakeNode) {
			f.observation, f.refuse, f.start = fakeStandby(3).observation, nil, 7
		})
		r.after(time.Second)
		nodes["c"].crash()
		nodes["a"].promote()
		r.after(time.Second)
		r.expect(t, "")
		if s := r.Snapshot(); !strings.Contains(s.Why, "cannot be remembered") || r.happened(EventMemory) == 0 {
			t.Errorf("why %s", s.Why)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.expect(t, "a")
	})
}

// TestMonitorUnreadableMemory: a broken memory stops the start instead of being forgotten.
func TestMonitorUnreadableMemory(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "version": `{"version": 9}`, "position": `{"version": 1, "fork": "x", "flushed": "0/0"}`,
		"node": `{"version": 1, "fork": "0/0", "flushed": "0/0", "nodes": {"a:1": {"timeline": 1, "received": "?"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Cluster, cfg.Login.User, cfg.StateDir = "fake", "watch", t.TempDir()
			cfg.Nodes = []NodeConfig{{Host: "a", Port: 1, Weight: 1}}
			if err := os.WriteFile(filepath.Join(cfg.StateDir, "fake.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := newMonitor(cfg, nil, fakeNet{}); err == nil {
				t.Fatal("started")
			}
		})
	}
}
