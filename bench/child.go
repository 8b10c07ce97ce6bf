package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// account is the user that proxies run as. The zero value is our own.
type account struct {
	uid, gid int
	other    bool
}

// serverAccount is the user "postgres" under root, because PgBouncer and the servers refuse to run
// as root, and our own otherwise.
func serverAccount() (account, error) {
	if os.Getuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, fmt.Errorf("look up the user that proxies run as: %w", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return account{uid, gid, true}, errors.Join(err1, err2)
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// child is a running program, made by startChild and ended by stop.
type child struct {
	log  string // the file that it writes to
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	quit chan struct{} // closed to let the starting thread go
	wg   sync.WaitGroup
	ask  []syscall.Signal // what it is stopped with, one after the other
}

// command is a program to start.
type command struct {
	path string
	args []string
	env  []string
	dir  string           // where it runs and logs; belongs to as
	as   account          // whom to run as
	ask  []syscall.Signal // how to stop it: the next signal follows when the one before did nothing for 3 s
}

// startChild starts the program; it ends with us, whatever happens to us.
func startChild(c command) (*child, error) {
	p := &child{log: filepath.Join(c.dir, "log"), done: make(chan struct{}), quit: make(chan struct{}), ask: c.ask}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", c.path, err)
	}
	defer log.Close()
	p.cmd = exec.Command(c.path, c.args...)
	p.cmd.Dir, p.cmd.Env = c.dir, append(cleanEnv(), c.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttr(c.ask[0])
	if c.as.other {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.as.uid), Gid: uint32(c.as.gid)} //nolint:gosec // ids of the system
	}
	started := make(chan error)
	p.wg.Go(func() {
		// The kernel signals the child when the thread that started it ends, so that thread stays.
		runtime.LockOSThread()
		started <- p.cmd.Start()
		<-p.quit
	})
	if err := <-started; err != nil {
		close(p.quit)
		p.wg.Wait()
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	p.wg.Go(func() {
		_ = p.cmd.Wait() // how it ended stands in its log
		close(p.done)
	})
	return p, nil
}

// cleanEnv is our environment without what steers libpq or pgweir.
func cleanEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "GOMAXPROCS=") {
			out = append(out, kv)
		}
	}
	return out
}

// pid is the process id of the program itself; its children are found by usage.
func (p *child) pid() int { return p.cmd.Process.Pid }

// logs is the end of what the program wrote.
func (p *child) logs() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-2048):]))
}

// await calls try until it succeeds, the program ends or 30 s have passed.
func (p *child) await(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("not tried yet")
	for {
		select {
		case <-p.done:
			return fmt.Errorf("wait for %s: it ended; its log ends:\n%s", p.cmd.Path, p.logs())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w); its log ends:\n%s", p.cmd.Path, context.Cause(ctx), last, p.logs())
		case <-tick.C:
		}
		if last = try(ctx); last == nil {
			return nil
		}
	}
}

// stop ends the program and what it left in its process group.
func (p *child) stop() error {
	pid := p.pid()
	var err error
	for _, sig := range append(p.ask, syscall.SIGKILL) {
		if e := p.cmd.Process.Signal(sig); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = errors.Join(err, fmt.Errorf("stop %s: %w", p.cmd.Path, e))
		}
		timer := time.NewTimer(3 * time.Second)
		select {
		case <-p.done:
			timer.Stop()
		case <-timer.C:
			continue
		}
		break
	}
	<-p.done
	// The group was made for this program (see childAttr); only its children can still be in it.
	if e := syscall.Kill(-pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
		err = errors.Join(err, fmt.Errorf("end the children of %s: %w", p.cmd.Path, e))
	}
	close(p.quit)
	p.wg.Wait()
	return err
}

// freePort is a TCP port on loopback that nobody listens on; who gets it must start at once.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
