package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	quick    bool
	check    bool
	out      string // file for the results; "": none
	rounds   int
	seconds  int // of each run of pgbench
	idle     int // clients of the row of memory; 0: leave it out
	scale    int // of pgbench's tables
	only     *regexp.Regexp
	pgweir   string // a binary to measure instead of building one
	beside   string // another one to measure in the same rounds
	maxprocs int    // GOMAXPROCS of pgweir; 0: what it chooses itself
	with     string // more flags for pgweir serve
}

// parse reads the command line. Help was asked for if the error is flag.ErrHelp; it is printed.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.quick, "quick", false, "the short run, about three minutes")
	f.BoolVar(&o.check, "check", false, "exit with status 1 when a bound does not hold: see check.go")
	f.StringVar(&o.out, "o", "", "write the results to this `file` too, as Markdown")
	f.IntVar(&o.rounds, "rounds", 3, "how often each candidate runs each row")
	f.IntVar(&o.seconds, "seconds", 0, "length of each run; default 3 with -quick, else 10")
	f.IntVar(&o.idle, "idle", 1000, "idle clients of the row of memory; 0 leaves it out")
	f.IntVar(&o.scale, "scale", 10, "scale of pgbench's tables")
	f.StringVar(&only, "only", "", "only rows whose name matches this `regexp`; memory, classifier and crowd are names too")
	f.StringVar(&o.beside, "beside", "", "measure this `program`, another build of pgweir, in the same rounds, as in -beside /tmp/pgweir.before")
	f.StringVar(&o.pgweir, "pgweir", "", "measure this `program` instead of building the tree's")
	f.IntVar(&o.maxprocs, "gomaxprocs", 0, "GOMAXPROCS of pgweir; default: what it chooses itself")
	f.StringVar(&o.with, "with", "", "more `flags` for pgweir serve, as in -with '--probe-standby-interval 1s', to see what a setting costs")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.seconds == 0 {
		o.seconds = 10
		if o.quick {
			o.seconds = 3
		}
	}
	if only != "" {
		var err error
		if o.only, err = regexp.Compile(only); err != nil {
			return o, fmt.Errorf("-only: %w", err)
		}
		if !o.only.MatchString(memoryRow) {
			o.idle = 0
		}
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.seconds < 1 || o.scale < 1 || o.idle < 0 || o.maxprocs < 0:
		return o, errors.New("-rounds, -seconds and -scale are at least 1, -idle and -gomaxprocs at least 0")
	case o.check && (o.only != nil || o.idle == 0):
		return o, errors.New("-check needs all rows: not with -only or -idle 0")
	}
	return o, nil
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Hour, errors.New("the bench took more than two hours"))
	defer cancel()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(stderr, "[%4.0f s] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	r, err := newRig(ctx, o, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	rep, err := r.measure(ctx)
	if err != nil {
		return err
	}
	rep.took = time.Since(began)
	fmt.Fprint(stdout, rep.text())
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(rep.markdown()), 0o644); err != nil { //nolint:gosec // a page of the documentation
			return fmt.Errorf("write the results: %w", err)
		}
	}
	if o.check {
		return rep.check()
	}
	return nil
}
