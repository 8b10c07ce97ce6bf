package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envChild makes the test binary play the parent that dies; see TestParentDeath.
const envChild = "PGWEIR_LOCALPG_CHILD"

// TestMain runs the tests, or the child of TestParentDeath.
func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// makeCluster makes a cluster that ends with the test.
func makeCluster(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	if cfg.Bins.Dir == "" {
		bins, err := Find(0)
		if errors.Is(err, ErrNotFound) {
			t.Skip(err)
		}
		must(t, err)
		cfg.Bins = bins
	}
	c, err := New(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("log of %s:\n%s", n.Name, n.Logs(40))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value asks one node for one value.
func value(t *testing.T, n *Node, sql string) string {
	t.Helper()
	v, err := n.Value(t.Context(), "postgres", sql)
	must(t, err)
	return v
}

// TestLifecycle walks a cluster through everything that a test of the proxy does to one.
func TestLifecycle(t *testing.T) {
	ctx := t.Context()
	c := makeCluster(t, Config{Standbys: 2, Slots: true, HotStandbyFeedback: true, SyncStandbys: "ANY 1 (*)", Settings: map[string]string{"work_mem": "5MB"}})
	a, b, d := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	must(t, c.Exec(ctx, "postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)"))
	must(t, c.InstallNodePort(ctx, "postgres"))
	for _, n := range c.Nodes {
		if got := value(t, n, "SELECT node_port() || ' ' || count(*) FROM t"); got != fmt.Sprintf("%d 1", n.Port()) {
			t.Errorf("%s answers %q", n.Name, got)
		}
		if got := value(t, n, "SHOW work_mem"); got != "5MB" {
			t.Errorf("work_mem on %s: %s", n.Name, got)
		}
		if got := value(t, n, "SHOW hot_standby_feedback"); got != "on" {
			t.Errorf("hot_standby_feedback on %s: %s", n.Name, got)
		}
	}
	if got := value(t, a, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"); got != "2" {
		t.Errorf("%s synchronous standbys", got)
	}
	if got := value(t, a, "SELECT count(*) FROM pg_replication_slots WHERE active"); got != "2" {
		t.Errorf("%s active slots", got)
	}

	must(t, b.PauseReplay(ctx))
	must(t, c.Exec(ctx, "postgres", "INSERT INTO t VALUES (2)"))
	must(t, d.WaitReplayed(ctx, mustLSN(t, a.Written)))
	if got := value(t, b, "SELECT count(*) FROM t"); got != "1" {
		t.Errorf("a paused standby shows %s rows", got)
	}
	if rec, rep := mustLSN(t, b.Received), mustLSN(t, b.Replayed); rec <= rep {
		t.Errorf("a paused standby has received %s and replayed %s", rec, rep)
	}
	must(t, b.ResumeReplay(ctx))
	must(t, c.WaitReplayed(ctx))

	must(t, a.Kill9())
	if a.Running() || a.PID() != 0 {
		t.Error("killed, but running")
	}
	if _, err := c.Primary(ctx); err == nil {
		t.Error("a primary after the only one was killed")
	}
	must(t, d.Promote(ctx))
	must(t, b.Follow(ctx, d))
	p, err := c.Primary(ctx)
	must(t, err)
	if p != d {
		t.Errorf("the primary is %s", p.Name)
	}
	must(t, c.Exec(ctx, "postgres", "INSERT INTO t VALUES (3)"))
	how, err := a.Rejoin(ctx, d)
	must(t, err)
	if c.Bins().Has("pg_rewind") && how != "pg_rewind" {
		t.Errorf("rejoined by %s", how)
	}
	must(t, c.WaitStreaming(ctx, d))
	must(t, c.WaitReplayed(ctx))
	for _, n := range c.Nodes {
		if got := value(t, n, "SELECT count(*) FROM t"); got != "3" {
			t.Errorf("%s has %s rows", n.Name, got)
		}
	}
	must(t, b.Restart(ctx, Fast))
	must(t, b.Stop(ctx, Immediate))
	if err := b.Stop(ctx, Fast); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stop of a stopped node: %v", err)
	}
	must(t, b.Reclone(ctx, d))
	must(t, c.WaitStreaming(ctx, d))
	if err := b.Start(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("start of a running node: %v", err)
	}
}

// mustLSN asks for a position.
func mustLSN(t *testing.T, ask func(context.Context) (LSN, error)) LSN {
	t.Helper()
	l, err := ask(t.Context())
	must(t, err)
	return l
}

// TestPause shows that a paused node accepts connections but answers nothing, and goes on later.
func TestPause(t *testing.T) {
	c := makeCluster(t, Config{})
	n := c.Nodes[0]
	must(t, n.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := n.Value(ctx, "postgres", "SELECT 1"); err == nil {
		t.Error("a paused node answered")
	}
	if err := n.Pause(); !errors.Is(err, ErrPaused) {
		t.Errorf("pause of a paused node: %v", err)
	}
	must(t, n.Resume())
	value(t, n, "SELECT 1")
	must(t, n.Pause())
	must(t, n.Kill9())
	must(t, n.Start(t.Context()))
	value(t, n, "SELECT 1")
}

// TestPassword shows that TCP asks for the password and the Unix socket does not.
func TestPassword(t *testing.T) {
	c := makeCluster(t, Config{Password: "it's \\secret", Files: map[string][]byte{"extra.txt": []byte("hi")}})
	n := c.Nodes[0]
	if got := value(t, n, "SELECT substr(rolpassword, 1, 14) FROM pg_authid WHERE rolname = 'postgres'"); got != "SCRAM-SHA-256$" {
		t.Errorf("password is stored as %s", got)
	}
	if got := value(t, n, "SELECT pg_read_file('extra.txt')"); got != "hi" {
		t.Errorf("the extra file holds %q", got)
	}
	psql := func(password string) error {
		cmd := exec.Command(c.Bins().Path("psql"), "-XAtc", "SELECT 1", "-h", "127.0.0.1", "-p", strconv.Itoa(n.Port()), "-U", Superuser, "postgres")
		cmd.Env = append(c.Environ(), "PGPASSWORD="+password)
		return cmd.Run()
	}
	if !c.Bins().Has("psql") {
		t.Skip("no psql in these binaries")
	}
	must(t, psql(c.Password))
	if psql("wrong") == nil {
		t.Error("a wrong password was let in")
	}
}

// TestCloneByHand makes a standby with binaries that have no pg_basebackup and no pg_rewind.
func TestCloneByHand(t *testing.T) {
	full, err := Find(0)
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "pgweir-bins-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"postgres", "initdb"} {
		must(t, os.Symlink(full.Path(name), filepath.Join(dir, name)))
	}
	few, err := At(dir)
	must(t, err)
	few.LibDir = full.LibDir
	c := makeCluster(t, Config{Bins: few, Standbys: 1})
	ctx := t.Context()
	must(t, c.Exec(ctx, "postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) i"))
	must(t, c.WaitReplayed(ctx))
	if got := value(t, c.Nodes[1], "SELECT count(*) FROM t"); got != "1000" {
		t.Errorf("the copy has %s rows", got)
	}
	must(t, c.Nodes[0].Kill9())
	if err := c.Nodes[0].Rewind(ctx, c.Nodes[1]); !errors.Is(err, ErrNoRewind) {
		t.Errorf("rewind without pg_rewind: %v", err)
	}
	must(t, c.Nodes[1].Promote(ctx))
	how, err := c.Nodes[0].Rejoin(ctx, c.Nodes[1])
	must(t, err)
	if how != "a fresh clone" {
		t.Errorf("rejoined by %s", how)
	}
	must(t, c.WaitStreaming(ctx, c.Nodes[1]))
}

// TestSupervisor kills one primary and hangs the next, and waits each time for a full cluster.
func TestSupervisor(t *testing.T) {
	c := makeCluster(t, Config{Standbys: 2})
	var mu sync.Mutex
	var said []string
	s := NewSupervisor(c, SupervisorConfig{Interval: 100 * time.Millisecond, Fall: 5, Rejoin: true, Say: func(line string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, line)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	old := c.Nodes[0]
	must(t, c.Exec(ctx, "postgres", "CREATE TABLE t (i int)"))
	must(t, c.WaitReplayed(ctx))
	for round, hurt := range []func(*Node) error{(*Node).Kill9, (*Node).Pause} {
		must(t, hurt(old))
		err := poll(ctx, func(ctx context.Context) (string, error) {
			p, err := c.Primary(ctx)
			if err != nil {
				return "", err
			}
			v, err := p.Value(ctx, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
			if err == nil && (p == old || v != "2") {
				return "wait for a new primary with two standbys: has " + v, nil
			}
			return "", err
		})
		must(t, err)
		p, err := c.Primary(ctx)
		must(t, err)
		must(t, p.Exec(ctx, "postgres", fmt.Sprintf("INSERT INTO t VALUES (%d)", round)))
		must(t, c.WaitReplayed(ctx))
		old = p
	}
	mu.Lock()
	defer mu.Unlock()
	text := strings.Join(said, "\n")
	for _, want := range []string{"is dead", "promoting", "is the primary now", "follows", "is back as a standby", "has not answered"} {
		if !strings.Contains(text, want) {
			t.Errorf("never said %q; said:\n%s", want, text)
		}
	}
}

// TestParentDeath kills a process that owns a cluster with one paused and one running node, and
// waits until no process of either is left.
func TestParentDeath(t *testing.T) {
	if _, err := Find(0); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only Linux ties children to the life of their parent")
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envChild+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	var dir string
	var pids []int
	lines := bufio.NewScanner(out)
	if lines.Scan() {
		f := strings.Fields(lines.Text())
		dir = f[0]
		for _, s := range f[1:] {
			p, err := strconv.Atoi(s)
			must(t, err)
			pids = append(pids, p)
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if len(pids) < 8 {
		t.Fatalf("the child named only %d processes", len(pids))
	}
	must(t, waitGone(t.Context(), pids))
	must(t, os.RemoveAll(dir))
}

// child is the process that TestParentDeath kills: it prints its cluster's directory and the ids
// of all its servers' processes, and waits.
func child() {
	c, err := New(context.Background(), Config{Standbys: 1})
	if err == nil {
		err = c.Nodes[1].Pause()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Print(c.Dir())
	for _, n := range c.Nodes {
		for _, p := range append(descendants(n.PID()), n.PID()) {
			fmt.Print(" ", p)
		}
	}
	fmt.Println()
	select {}
}

// TestErrors shows that mistakes are told before anything is started.
func TestErrors(t *testing.T) {
	err := Config{Standbys: 12, Auth: "peer", Settings: map[string]string{"port": "1"}}.Validate()
	for _, want := range []string{"12", "peer", "port"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := At(t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Find(9); !errors.Is(err, ErrNotFound) {
		t.Errorf("version 9: %v", err)
	}
	if _, err := New(t.Context(), Config{Dir: "/proc/self"}); err == nil {
		t.Error("a cluster in a directory that is not empty")
	}
	if _, err := New(t.Context(), Config{Settings: map[string]string{"no_such_setting": "1"}}); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("a setting that the server does not know: %v", err)
	}
	if _, err := ParseLSN("0/1/2"); err == nil {
		t.Error("a malformed position was read")
	}
	if l, err := ParseLSN("16/B374D848"); err != nil || l.String() != "16/B374D848" {
		t.Errorf("position: %v %v", l, err)
	}
}
