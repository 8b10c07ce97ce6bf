package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spawner starts all children of a cluster from one thread of the operating system, because the
// kernel's "tell me when my parent dies" means the thread that started the child, not the process.
type spawner struct {
	jobs chan spawnJob
	wg   sync.WaitGroup
}

// spawnJob is one command to start; the answer is what Start returned.
type spawnJob struct {
	cmd  *exec.Cmd
	done chan error
}

// newSpawner begins the thread. The caller must call close, after all children have ended.
func newSpawner() *spawner {
	s := &spawner{jobs: make(chan spawnJob)}
	s.wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for j := range s.jobs {
			j.done <- j.cmd.Start()
		}
	})
	return s
}

// start is cmd.Start on the spawner's thread.
func (s *spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.jobs <- spawnJob{cmd, done}
	return <-done
}

// close ends the thread.
func (s *spawner) close() {
	close(s.jobs)
	s.wg.Wait()
}

// run runs one of the PostgreSQL programs to its end as the server's user. The error carries the
// last lines of what it printed.
func (c *Cluster) run(ctx context.Context, stdin io.Reader, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, c.bins.Path(name), args...)
	cmd.SysProcAttr = procAttr(c.account)
	cmd.Env = c.bins.environ()
	cmd.Dir = c.dir
	cmd.Stdin = stdin
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.spawner.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w%s", name, err, c.accessHint(err))
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(lastLines(out.String(), 6)))
	}
	return nil
}

// accessHint explains the permission error that binaries below a private home directory give.
func (c *Cluster) accessHint(err error) string {
	if errors.Is(err, syscall.EACCES) && c.account.other {
		return fmt.Sprintf(" (PostgreSQL runs as user id %d, who must be able to reach %s)", c.account.uid, c.bins.Dir)
	}
	return ""
}

// port is a TCP port on loopback that a node keeps for its life, also while its server is down.
type port struct {
	number int
	lock   net.Listener // nil where there is no such lock
}

// takePort chooses a free port below those that the kernel hands to outgoing connections: a node
// that is down must not find its port taken by one, nor a dialler meet itself there.
func takePort() (port, error) {
	const low = 10240
	span := ephemeralStart() - low
	for range 1000 {
		n := low + rand.IntN(span)
		p := port{number: n}
		if addr := portLockAddr(n); addr != "" {
			l, err := net.Listen("unix", addr)
			if err != nil {
				continue
			}
			p.lock = l
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
		if err != nil {
			p.release()
			continue
		}
		if err := l.Close(); err != nil {
			p.release()
			return port{}, fmt.Errorf("close the trial listener on port %d: %w", n, err)
		}
		return p, nil
	}
	return port{}, errors.New("find a free TCP port on 127.0.0.1: 1000 tries met only taken ones")
}

// release gives the port up.
func (p port) release() {
	if p.lock != nil {
		_ = p.lock.Close() // an abstract address leaves nothing behind
	}
}

// watchdog kills paused processes if this process dies: a stopped process gets no other signal
// and would stay for ever. It is a shell that waits for the end of its standard input.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// newWatchdog begins to watch over pids, which must be stopped. The caller must call end.
func newWatchdog(pids []int) (*watchdog, error) {
	args := []string{"-c", `read -r _ && exit 0; kill -KILL "$@"`, "sh"}
	for _, p := range pids {
		args = append(args, strconv.Itoa(p))
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = string(filepath.Separator)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe to the watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{cmd, stdin}, nil
}

// end tells the watchdog that it is no longer needed and waits for it.
func (w *watchdog) end() {
	_, _ = io.WriteString(w.stdin, "done\n") // if it is gone already, it has nothing left to do
	_ = w.stdin.Close()
	_ = w.cmd.Wait()
}

// lastLines returns the last n lines of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
