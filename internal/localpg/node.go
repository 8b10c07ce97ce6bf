package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is one server of a Cluster: a data directory, a port, and the processes when it runs.
type Node struct {
	ID   int
	Name string // "pg0", "pg1" …; its cluster_name, and its application_name as a standby

	c    *Cluster
	port port
	dir  string
	data string
	log  string
	busy chan struct{} // holds one token while a move is under way

	mu struct {
		sync.Mutex
		proc   *process
		paused *watchdog
		follow *Node // whom it streams from when it starts as a standby
		sync   string
	}
}

// process is one run of the server.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the postmaster has ended
	err  error         // why, valid after done
}

// StopMode is how a server is asked to stop.
type StopMode syscall.Signal

// The stop modes, by PostgreSQL's names.
const (
	Smart     = StopMode(syscall.SIGTERM) // waits for the clients
	Fast      = StopMode(syscall.SIGINT)  // ends the sessions, writes a checkpoint; standbys get everything
	Immediate = StopMode(syscall.SIGQUIT) // like a crash, but told
)

// Errors of moves that do not fit the node's state.
var (
	ErrRunning    = errors.New("the node is running")
	ErrNotRunning = errors.New("the node is not running")
	ErrPaused     = errors.New("the node is paused")
)

// newNode makes the description of a node; nothing on disk yet.
func newNode(c *Cluster, id int, p port) *Node {
	name := fmt.Sprintf("pg%d", id)
	dir := filepath.Join(c.dir, name)
	return &Node{
		ID: id, Name: name, c: c, port: p, dir: dir,
		data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"), busy: make(chan struct{}, 1),
	}
}

// begin takes the token for a move; the caller must call the function that it returns.
func (n *Node) begin(ctx context.Context) (func(), error) {
	select {
	case n.busy <- struct{}{}:
		return func() { <-n.busy }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Port is the TCP port on 127.0.0.1 and of the Unix socket; it never changes.
func (n *Node) Port() int { return n.port.number }

// Addr is host:port for TCP.
func (n *Node) Addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port.number) }

// DataDir is the node's data directory.
func (n *Node) DataDir() string { return n.data }

// DSN is a connection URL over TCP to a database, as Superuser.
func (n *Node) DSN(db string) string { return n.DSNFor(db, Superuser, n.c.Password) }

// DSNFor is a connection URL over TCP to a database as some role. The names must need no escaping
// in a URL.
func (n *Node) DSNFor(db, user, password string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, password, n.Addr(), db)
}

// Running says whether the node's postmaster exists (a paused one does).
func (n *Node) Running() bool {
	p := n.process()
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Paused says whether the node is stopped by Pause.
func (n *Node) Paused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.paused != nil
}

// Ended returns a channel that is closed when the present run of the node has ended, at once for
// a node that is not running.
func (n *Node) Ended() <-chan struct{} {
	if p := n.process(); p != nil {
		return p.done
	}
	c := make(chan struct{})
	close(c)
	return c
}

// PID is the postmaster's process id, 0 when the node is not running.
func (n *Node) PID() int {
	if p := n.process(); p != nil && n.Running() {
		return p.cmd.Process.Pid
	}
	return 0
}

// process is the present or last run.
func (n *Node) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.proc
}

// Start starts the server and returns when it answers queries.
func (n *Node) Start(ctx context.Context) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return n.start(ctx)
}

// startFirst is start for a node that was just made: it takes another port when somebody has
// taken this one in the meantime.
func (n *Node) startFirst(ctx context.Context) error {
	for try := 0; ; try++ {
		err := n.start(ctx)
		if err == nil || try == 3 || !strings.Contains(n.Logs(20), "Address already in use") {
			return err
		}
		p, perr := takePort()
		if perr != nil {
			return errors.Join(err, perr)
		}
		n.port.release()
		n.port = p
	}
}

// start is Start with the token held.
func (n *Node) start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start %s: %w", n.Name, ErrRunning)
	}
	if err := n.writeConf(); err != nil {
		return err
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.Name, err)
	}
	cmd := exec.Command(n.c.bins.Path("postgres"), "-D", n.data)
	cmd.SysProcAttr = procAttr(n.c.account)
	cmd.Env = n.c.bins.environ()
	cmd.Dir = n.c.dir
	cmd.Stdout, cmd.Stderr = log, log
	err = n.c.spawner.start(cmd)
	if cerr := log.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("start %s: %w%s", n.Name, err, n.c.accessHint(err))
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	n.c.wg.Go(func() {
		p.err = cmd.Wait()
		close(p.done)
	})
	n.mu.Lock()
	n.mu.proc = p
	n.mu.Unlock()
	return n.waitReady(ctx, p)
}

// waitReady waits until the server answers, and reports the end of its log when it ends instead.
func (n *Node) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := errors.New("the server ended")
	n.c.wg.Go(func() {
		select {
		case <-p.done:
			cancel(ended)
		case <-ctx.Done():
		}
	})
	err := poll(ctx, func(ctx context.Context) (string, error) {
		_, err := n.Value(ctx, "postgres", "SELECT 1")
		return "", err
	})
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), ended) {
		return fmt.Errorf("start %s: %w; its log ends:\n%s", n.Name, ended, n.Logs(12))
	}
	return fmt.Errorf("wait for %s to answer: %w; its log ends:\n%s", n.Name, err, n.Logs(12))
}

// Stop stops the server and waits until all its processes are gone.
func (n *Node) Stop(ctx context.Context, mode StopMode) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if n.Paused() {
		return fmt.Errorf("stop %s: %w", n.Name, ErrPaused)
	}
	return n.stop(ctx, mode)
}

// stop is Stop with the token held.
func (n *Node) stop(ctx context.Context, mode StopMode) error {
	if !n.Running() {
		return fmt.Errorf("stop %s: %w", n.Name, ErrNotRunning)
	}
	p := n.process()
	below := descendants(p.cmd.Process.Pid)
	if err := p.cmd.Process.Signal(syscall.Signal(mode)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to stop: %w", n.Name, context.Cause(ctx))
	}
	return waitGone(ctx, below)
}

// Restart stops the server and starts it again.
func (n *Node) Restart(ctx context.Context, mode StopMode) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if n.Running() {
		if err := n.stop(ctx, mode); err != nil {
			return err
		}
	}
	return n.start(ctx)
}

// Kill9 kills the postmaster and all its processes with SIGKILL, as a crash of the machine would,
// but for what the operating system still holds. It works on a paused node too and does nothing
// to one that is not running.
func (n *Node) Kill9() error {
	p := n.process()
	if p == nil || !n.Running() {
		return n.unwatch()
	}
	pid := p.cmd.Process.Pid
	// Stopped first, the postmaster starts no new process and reaps none, so that every id that
	// is seen below it still names its child when the signal goes out.
	if err := freeze(pid); err != nil {
		return fmt.Errorf("kill %s: %w", n.Name, err)
	}
	below := descendants(pid)
	for _, child := range below {
		_ = syscall.Kill(child, syscall.SIGKILL) // one that has ended by itself is as good
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.Name, err)
	}
	<-p.done
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(waitGone(ctx, below), n.unwatch())
}

// Pause stops all processes of the node with SIGSTOP: its sockets stay open, nothing answers.
func (n *Node) Pause() error {
	if !n.Running() {
		return fmt.Errorf("pause %s: %w", n.Name, ErrNotRunning)
	}
	if n.Paused() {
		return fmt.Errorf("pause %s: %w", n.Name, ErrPaused)
	}
	pid := n.process().cmd.Process.Pid
	if err := freeze(pid); err != nil {
		return fmt.Errorf("pause %s: %w", n.Name, err)
	}
	below := descendants(pid)
	for _, child := range below {
		if err := freeze(child); err != nil {
			return fmt.Errorf("pause %s: %w", n.Name, err)
		}
	}
	w, err := newWatchdog(append([]int{pid}, below...))
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.paused = w
	n.mu.Unlock()
	return nil
}

// Resume lets a paused node go on.
func (n *Node) Resume() error {
	if !n.Paused() {
		return fmt.Errorf("resume %s: the node is not paused", n.Name)
	}
	pid := n.process().cmd.Process.Pid
	for _, p := range append(descendants(pid), pid) {
		if err := syscall.Kill(p, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("resume %s: %w", n.Name, err)
		}
	}
	return n.unwatch()
}

// unwatch ends the watchdog of a paused node.
func (n *Node) unwatch() error {
	n.mu.Lock()
	w := n.mu.paused
	n.mu.paused = nil
	n.mu.Unlock()
	if w != nil {
		w.end()
	}
	return nil
}

// Logs returns the last lines of the server's log.
func (n *Node) Logs(lines int) string {
	f, err := os.Open(n.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 256 << 10
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		if _, err := f.Seek(-tail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	return lastLines(string(text), lines)
}

// freeze sends SIGSTOP and waits until the kernel has carried it out.
func freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	return poll(context.Background(), func(context.Context) (string, error) {
		if stopped(pid) {
			return "", nil
		}
		return fmt.Sprintf("wait for process %d to be stopped", pid), nil
	})
}

// waitGone waits until none of the processes is left.
func waitGone(ctx context.Context, pids []int) error {
	return poll(ctx, func(context.Context) (string, error) {
		for _, p := range pids {
			if alive(p) {
				return fmt.Sprintf("wait for process %d to end", p), nil
			}
		}
		return "", nil
	})
}
