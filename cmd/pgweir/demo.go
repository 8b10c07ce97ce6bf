package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgweir/internal/localpg"
)

// demoOptions is what the command line of `pgweir demo` says.
type demoOptions struct {
	check    bool
	role     string // who the monitor is: superuser or setup-sql
	listen   string
	admin    string
	bins     string
	version  int
	standbys int
}

// The database of the demo, and the role that its DSN names. The role owns the database and has
// no other rights.
const (
	demoDatabase = "demo"
	demoUser     = "demo"
	demoPassword = "demo"
)

// parseDemo reads the command line. Help was asked for if the error is flag.ErrHelp; it is printed.
func parseDemo(args []string, stderr io.Writer) (demoOptions, error) {
	var o demoOptions
	f := flag.NewFlagSet("pgweir demo", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: pgweir demo [flags]\n\nStarts a real primary and streaming standbys from the PostgreSQL on this machine, the proxy in\nfront of them, and shows who answers what. Ctrl-C removes everything.")
		f.PrintDefaults()
	}
	f.BoolVar(&o.check, "check", false, "run a scripted tour instead (write, read, kill the primary, write again) and end; exit status 1 if a step fails")
	f.StringVar(&o.role, "role", "superuser", "whom the proxy watches the nodes as: superuser, or setup-sql for exactly the role that `pgweir setup-sql` makes")
	f.StringVar(&o.listen, "listen", "127.0.0.1:6432", "address of the proxy; another port is taken when the default one is in use")
	f.StringVar(&o.admin, "admin", "127.0.0.1:9187", "address for HTTP; another port is taken when the default one is in use")
	f.StringVar(&o.bins, "pg-bins", "", "directory of the PostgreSQL programs; default: the newest version found on this machine")
	f.IntVar(&o.version, "pg-version", 0, "major version of PostgreSQL to look for")
	f.IntVar(&o.standbys, "standbys", 2, "how many standbys")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("demo: unexpected argument %q", f.Arg(0))
	case o.role != "superuser" && o.role != "setup-sql":
		return o, fmt.Errorf("demo: --role %q: superuser or setup-sql", o.role)
	case o.standbys < 1 || o.standbys > 9:
		return o, fmt.Errorf("demo: --standbys %d: between 1 and 9", o.standbys)
	case o.check && o.standbys < 2:
		return o, errors.New("demo: --check kills the primary and goes on reading from a standby: it needs --standbys 2 or more")
	}
	var err error
	if o.listen, err = demoAddr(o.listen, isSet(f, "listen")); err != nil {
		return o, err
	}
	o.admin, err = demoAddr(o.admin, isSet(f, "admin"))
	return o, err
}

// isSet says whether the flag was given.
func isSet(f *flag.FlagSet, name string) bool {
	set := false
	f.Visit(func(fl *flag.Flag) { set = set || fl.Name == name })
	return set
}

// demoAddr makes sure that addr can be listened on. A port that was not asked for by name is
// replaced by a free one when somebody has it; port 0 always is.
func demoAddr(addr string, asked bool) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil && !asked {
		host, _, serr := net.SplitHostPort(addr)
		if serr != nil {
			return "", serr
		}
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	addr = l.Addr().String()
	return addr, l.Close()
}

// runDemo is the command `pgweir demo`. It returns when ctx ends, when the person says so, or, with
// --check, after the tour; everything that it started is gone then.
func runDemo(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	o, err := parseDemo(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	d := &demo{demoOptions: o, out: &lineWriter{w: stdout}, began: time.Now()}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wg.Go(func() {
		s := localpg.NewSupervisor(d.cluster, localpg.SupervisorConfig{
			Rejoin: true,
			Say:    func(line string) { d.say("   supervisor: %s", line) },
		})
		if err := s.Run(ctx); err != nil {
			cancel(fmt.Errorf("supervise the demo's cluster: %w", err))
		}
	})
	wg.Go(func() {
		select {
		case <-d.proxy.done:
			cancel(fmt.Errorf("the proxy ended: %w; its log ends:\n%s", d.proxy.err, d.proxy.logs()))
		case <-ctx.Done():
		}
	})
	if o.check {
		err = d.tour(ctx)
	} else {
		err = d.interact(ctx, stdin)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// demo is a running demonstration.
type demo struct {
	demoOptions
	out     *lineWriter
	began   time.Time
	cluster *localpg.Cluster
	proxy   *proxyChild
}

// lineWriter lets the supervisor and the tour write to one place, a whole line at a time.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// line writes one line; a terminal that went away is no reason to stop.
func (l *lineWriter) line(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, s+"\n")
}

// say prints a line with the time since the demo began.
func (d *demo) say(format string, args ...any) {
	d.out.line(fmt.Sprintf("[%5.1f s] ", time.Since(d.began).Seconds()) + fmt.Sprintf(format, args...))
}

// start brings up the cluster and the proxy.
func (d *demo) start(ctx context.Context) error {
	bins, err := d.findBins()
	if err != nil {
		return err
	}
	d.say("starting a primary and %d standbys of PostgreSQL %d (%s)", d.standbys, bins.Version, bins.Dir)
	// One synchronous standby, so that what was acknowledged survives the death of the primary:
	// the supervisor promotes the standby that received most.
	d.cluster, err = localpg.New(ctx, localpg.Config{Bins: bins, Standbys: d.standbys, SyncStandbys: "ANY 1 (*)", HotStandbyFeedback: true})
	if err != nil {
		return err
	}
	for i, n := range d.cluster.Nodes {
		role := "standby"
		if i == 0 {
			role = "primary"
		}
		d.say("   %s  port %d  %s", n.Name, n.Port(), role)
	}
	monitor, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	d.say("starting the proxy; it watches the nodes as role %q", monitor.user)
	d.proxy, err = startProxyChild(ctx, d.configFile(monitor), d.admin)
	if err != nil {
		return err
	}
	d.say("ready")
	return nil
}

// findBins chooses the server programs.
func (d *demo) findBins() (localpg.Bins, error) {
	if d.bins != "" {
		return localpg.At(d.bins)
	}
	return localpg.Find(d.version)
}

// credentials are a role and its password.
type credentials struct{ user, password string }

// prepare makes the demo's database and roles, and returns whom the proxy watches as.
func (d *demo) prepare(ctx context.Context) (credentials, error) {
	script, err := ownOutput(ctx, "setup-sql")
	if err != nil {
		return credentials{}, err
	}
	primary := d.cluster.Nodes[0]
	password := d.cluster.Password
	steps := []struct{ db, sql string }{
		{"postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", demoUser, demoPassword)},
		{"postgres", fmt.Sprintf("CREATE DATABASE %s OWNER %s", demoDatabase, demoUser)},
		{"postgres", script},
		{"postgres", "ALTER ROLE pgweir PASSWORD '" + password + "'"},
	}
	for _, s := range steps {
		if err := primary.Exec(ctx, s.db, s.sql); err != nil {
			return credentials{}, fmt.Errorf("prepare the demo's database: %w", err)
		}
	}
	if err := d.cluster.InstallNodePort(ctx, demoDatabase); err != nil {
		return credentials{}, err
	}
	if d.role == "setup-sql" {
		return credentials{"pgweir", password}, nil
	}
	return credentials{localpg.Superuser, password}, nil
}

// configFile is the configuration that the proxy is started with.
func (d *demo) configFile(monitor credentials) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: [%q]\nadmin: {listen: %q}\nclusters:\n  main:\n", d.listen, d.admin)
	fmt.Fprintf(&b, "    monitor: {user: %q, password: %q}\n    nodes:\n", monitor.user, monitor.password)
	for _, n := range d.cluster.Nodes {
		fmt.Fprintf(&b, "      - {name: %s, host: 127.0.0.1, port: %d}\n", n.Name, n.Port())
	}
	return b.String()
}

// dsn is what a client of the demo connects with.
func (d *demo) dsn() string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s", demoUser, demoPassword, d.listen, demoDatabase)
}

// name is how a node is called in what the demo prints, from the port it answered.
func (d *demo) name(port int) string {
	n := d.cluster.ByPort(port)
	if n == nil {
		return "port " + strconv.Itoa(port)
	}
	return fmt.Sprintf("%s (port %d)", n.Name, port)
}

// interact prints the DSN, shows who answers what and does what the person types, until ctx ends.
func (d *demo) interact(ctx context.Context, stdin io.Reader) error {
	if err := d.tourCreate(ctx); err != nil {
		return err
	}
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	err = d.show(ctx, c)
	c.close(ctx)
	if err != nil {
		return err
	}
	d.out.line("\n  connect to:  psql '" + d.dsn() + "'\n  HTTP:        http://" + d.admin + "/\n\n" +
		"  who answered?     SELECT node_port();          why?   SHOW pgweir.last_route;\n" +
		"  type here:        w  write and read    k  kill the primary    s  who is what    q  quit (or Ctrl-C)\n")
	lines := make(chan string)
	// Reading a terminal cannot be interrupted: this goroutine ends with its next line or with
	// the process, and nothing waits for it.
	go func() {
		in := bufio.NewScanner(stdin)
		for in.Scan() {
			select {
			case lines <- strings.TrimSpace(in.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-lines:
			if line == "q" {
				return nil
			}
			if err := d.do(ctx, line); err != nil && ctx.Err() == nil {
				d.say("✖ %v", err)
			}
		}
	}
}

// do carries out one line that the person typed.
func (d *demo) do(ctx context.Context, line string) error {
	switch line {
	case "":
		return nil
	case "k":
		p, err := d.cluster.Primary(ctx)
		if err != nil {
			return err
		}
		d.say("kill -9 of %s (port %d)", p.Name, p.Port())
		return p.Kill9()
	case "s":
		for _, n := range d.cluster.Nodes {
			role := "down"
			if n.Running() {
				role = "primary"
				if rec, err := n.InRecovery(ctx); err != nil {
					role = err.Error()
				} else if rec {
					role = "standby"
				}
			}
			d.say("   %s  port %d  %s", n.Name, n.Port(), role)
		}
		return nil
	case "w":
		c, err := d.connect(ctx)
		if err != nil {
			return err
		}
		defer c.close(ctx)
		return d.show(ctx, c)
	default:
		return fmt.Errorf("%q: type w, k, s or q", line)
	}
}

// close stops the proxy and removes the cluster.
func (d *demo) close() error {
	var errs []error
	if d.proxy != nil {
		errs = append(errs, d.proxy.stop())
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.Close())
		d.say("everything that was started is gone")
	}
	return errors.Join(errs...)
}

// ownOutput runs a command of this program and returns what it printed.
func ownOutput(ctx context.Context, args ...string) (string, error) {
	cmd, err := ownCommand(ctx, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run pgweir %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
