package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proxyChild is a second process of this program that serves: the demo shows what is shipped, not
// a server wired up in another way.
type proxyChild struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended, valid after done
	quit chan struct{} // closed to let the starting thread go
	wg   sync.WaitGroup
}

// ownCommand is this program with other arguments. Environment variables that configure pgweir
// are left out: the demo says everything itself.
func ownCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PGWEIR_") && !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd, nil
}

// startProxyChild runs `pgweir serve -c` with the configuration and returns when /readyz on the
// admin address says yes. The caller must call stop unless there was an error.
func startProxyChild(ctx context.Context, config, admin string) (*proxyChild, error) {
	dir, err := os.MkdirTemp("", "pgweir-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the proxy: %w", err)
	}
	p := &proxyChild{dir: dir, done: make(chan struct{}), quit: make(chan struct{})}
	if err := p.start(config); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.waitReady(ctx, admin); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// start writes the configuration and starts the process.
func (p *proxyChild) start(config string) error {
	file := filepath.Join(p.dir, "pgweir.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the proxy's configuration: %w", err)
	}
	cmd, err := ownCommand(context.Background(), "serve", "-c", file)
	if err != nil {
		return err
	}
	log, err := os.Create(p.logFile())
	if err != nil {
		return fmt.Errorf("make the proxy's log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	p.cmd = cmd
	started := make(chan error)
	p.wg.Go(func() {
		// The kernel ends the child when the thread that started it ends, so that thread stays.
		runtime.LockOSThread()
		started <- cmd.Start()
		<-p.quit
	})
	if err := <-started; err != nil {
		close(p.quit)
		p.wg.Wait()
		return fmt.Errorf("start the proxy: %w", err)
	}
	p.wg.Go(func() {
		p.err = cmd.Wait()
		if p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.done)
	})
	return nil
}

// waitReady asks /readyz until it says yes.
func (p *proxyChild) waitReady(ctx context.Context, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("not asked yet")
	for {
		select {
		case <-p.done:
			return fmt.Errorf("start the proxy: it ended (%w); its log ends:\n%s", p.err, p.logs())
		case <-ctx.Done():
			return fmt.Errorf("wait for the proxy to be ready: %w (last answer: %w); its log ends:\n%s", context.Cause(ctx), last, p.logs())
		case <-tick.C:
		}
		if last = askReady(ctx, admin); last == nil {
			return nil
		}
	}
}

// askReady returns nil when the proxy at that admin address is ready.
func askReady(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return errors.Join(fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body))), err)
}

// logFile is where the process writes.
func (p *proxyChild) logFile() string { return filepath.Join(p.dir, "log") }

// logs is the end of what the process wrote.
func (p *proxyChild) logs() string {
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

// stop ends the process, whoever is connected, and removes its directory.
func (p *proxyChild) stop() error {
	// TERM waits for the clients, a second one does not (docs: signals).
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGTERM, os.Kill} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the proxy: %w", err)
		}
		timer := time.NewTimer(2 * time.Second)
		select {
		case <-p.done:
		case <-timer.C:
			continue
		}
		timer.Stop()
		break
	}
	<-p.done
	close(p.quit)
	p.wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	return os.RemoveAll(p.dir)
}
