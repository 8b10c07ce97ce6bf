// Package drive walks a tool's program through the steps of ../../README.md.
package drive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What the programs make and read.
const (
	Authors  = 10 // "author 1" to "author 10"
	Books    = 5  // of each author
	Workers  = 10
	requests = 30                   // of each worker in a step
	pause    = 5 * time.Millisecond // a worker's think time while the primary dies
)

// Tool is what a program of a tool can do; every method fails where something is not as it should be. A tool that
// only migrates leaves Plain and Block nil.
type Tool struct {
	Name   string // and version
	Up     func(ctx context.Context) error
	Down   func(ctx context.Context) error
	Tables func(ctx context.Context) ([]string, error) // that are there
	CRUD   func(ctx context.Context) error             // leaves Authors authors with Books books each
	Nested func(ctx context.Context) error             // a transaction in a transaction
	Plain  func(ctx context.Context, n int) error      // reads author n and the books, as the tool does by itself
	Block  func(ctx context.Context, n int) error      // the same in a transaction
	Write  func(ctx context.Context, n int, title string) error
	// Code is the SQLSTATE of an error, "" when it has none; nil: that of a pgconn.PgError.
	Code func(err error) string
}

// Run takes the steps, and ends the program.
func Run(t Tool) {
	if err := t.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Name is the name of author n.
func Name(n int) string { return fmt.Sprintf("author %d", n) }

// Version is the version of a module that the program is built with.
func Version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == module {
				return strings.TrimPrefix(d.Version, "v")
			}
		}
	}
	return ""
}

// Check is an error when got is not want.
func Check(what string, got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s: got %v, not %v", what, got, want)
	}
	return nil
}

// Code is the SQLSTATE of pgx's errors.
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// report prints a line for the driver.
func report(step string, facts map[string]any) error {
	facts["step"] = step
	return json.NewEncoder(os.Stdout).Encode(facts)
}

// run takes the steps.
func (t *Tool) run(ctx context.Context) error {
	in := bufio.NewScanner(os.Stdin)
	wait := func() string {
		if !in.Scan() {
			fmt.Fprintln(os.Stderr, "the driver is gone")
			os.Exit(1)
		}
		return in.Text()
	}
	migrate := func() error {
		return errors.Join(t.moves(ctx, t.Up, "authors", "books"), t.moves(ctx, t.Down), t.moves(ctx, t.Up, "authors", "books"))
	}
	if err := report("hello", map[string]any{"tool": t.Name}); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{{"migrate", migrate}, {"crud", func() error { return t.CRUD(ctx) }}, {"nested", func() error { return t.Nested(ctx) }}} {
		wait()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := report(s.name, map[string]any{}); err != nil {
			return err
		}
	}
	line := wait()
	for reads := map[string]func(context.Context, int) error{"plain": t.Plain, "block": t.Block}; reads[line] != nil; line = wait() {
		if err := t.reading(ctx, line, reads[line]); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	if err := t.failover(ctx, wait); err != nil {
		return err
	}
	wait()
	if err := t.moves(ctx, t.Down); err != nil {
		return err
	}
	return report("down", map[string]any{})
}

// moves migrates and looks which of the two tables are there then.
func (t *Tool) moves(ctx context.Context, move func(context.Context) error, want ...string) error {
	if err := move(ctx); err != nil {
		return err
	}
	tables, err := t.Tables(ctx)
	if err != nil {
		return err
	}
	tables = slices.DeleteFunc(tables, func(s string) bool { return s != "authors" && s != "books" })
	slices.Sort(tables)
	return Check("tables", strings.Join(tables, " "), strings.Join(want, " "))
}

// workers runs work in every worker, and returns the first error.
func workers(work func(w int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, Workers)
	for w := range Workers {
		wg.Go(func() { errs[w] = work(w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// reading has every worker read; one request in ten writes.
func (t *Tool) reading(ctx context.Context, step string, read func(context.Context, int) error) error {
	err := workers(func(w int) error {
		for i := range requests {
			var err error
			if (i+w)%10 == 0 {
				err = t.Write(ctx, w+1, fmt.Sprintf("%s %d %d", step, w, i))
			} else {
				err = read(ctx, (w+i)%Authors+1)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return report(step, map[string]any{"requests": Workers * requests})
}

// failover works on until every worker has done ten requests behind the driver's word.
func (t *Tool) failover(ctx context.Context, wait func() string) error {
	var mu sync.Mutex
	asked, written, gaveUp, failed := 0, 0, 0, map[string]int{}
	attempt := func(w, i int) {
		for _, last := range []bool{false, true} {
			n, kind := (w+i)%Authors+1, i%3
			var err error
			switch {
			case kind == 0 && t.Plain != nil:
				err = t.Plain(ctx, n)
			case kind == 1 && t.Block != nil:
				err = t.Block(ctx, n)
			default:
				kind = 2
				err = t.Write(ctx, n, fmt.Sprintf("failover %d %d", w, i))
			}
			mu.Lock()
			switch code := t.code(err); {
			case err == nil && kind == 2:
				written++
			case err == nil:
			case last:
				gaveUp++
			default:
				failed[code]++
			}
			mu.Unlock()
			if err == nil {
				return
			}
			fmt.Fprintf(os.Stderr, "worker %d, request %d: %v\n", w, i, err)
		}
	}
	var over atomic.Bool
	var warm, all sync.WaitGroup
	warm.Add(Workers)
	for w := range Workers {
		all.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			i := 0
			for more := 10; more > 0; i++ {
				attempt(w, i)
				if i == 5 {
					warm.Done()
				}
				if over.Load() {
					more--
				}
				<-tick.C
			}
			mu.Lock()
			asked += i
			mu.Unlock()
		})
	}
	warm.Wait()
	if err := report("working", map[string]any{}); err != nil {
		return err
	}
	wait()
	over.Store(true)
	all.Wait()
	return report("failover", map[string]any{"requests": asked, "written": written, "gave_up": gaveUp, "errors": failed})
}

// code is a word for an error: its SQLSTATE where it has one.
func (t *Tool) code(err error) string {
	if err == nil {
		return ""
	}
	of := Code
	if t.Code != nil {
		of = t.Code
	}
	if code := of(err); code != "" {
		return code
	}
	return "no SQLSTATE"
}
