package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"pgweir/health"
	"pgweir/internal/admin"
	"pgweir/internal/console"
	"pgweir/internal/turn"
	"pgweir/proxy"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// runServe is the proxy: it runs until a signal ends it or ctx does.
func runServe(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	fs := newFlagSet("serve", "[-c FILE] [--node DSN ...] [--listen ADDR] [FLAGS]")
	source := newSource(fs, os.Environ())
	if err := parseFlags(fs, args, 0, stdout); err != nil {
		return err
	}
	cfg, err := source.Load()
	if err != nil {
		return err
	}
	limitProcessors()
	log := newLogger(cfg.Log, stderr)
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	srv, err := newServer(cfg, log)
	if err != nil {
		return err
	}
	// Signals are handled here as well as by main's context: a second one means more than the first.
	stopped, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	var wg sync.WaitGroup
	defer wg.Wait()
	over, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	wg.Go(func() { srv.obey(over, signals, source, stop) })
	return srv.run(stopped)
}

// limitProcessors takes half of the processors unless GOMAXPROCS says otherwise: a session is one goroutine
// that waits most of the time, and every further processor costs idle spinning (docs/decisions/0011).
func limitProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

// newLogger is the process's log.
func newLogger(c Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// server is a whole process, wired and not yet running.
type server struct {
	log      *slog.Logger
	started  time.Time
	config   atomic.Pointer[Config]
	clusters []*member
	tls      atomic.Pointer[[]listenerTLS]
	peers    atomic.Pointer[map[int]pool.Target] // by number
	registry *prometheus.Registry
	reloads  *prometheus.CounterVec
	pool     *pool.Pool
	proxy    *proxy.Server
	console  *console.Console
	levers   chan lever // from the console to obey
	admin    *admin.Server
	ready    atomic.Bool
	targets  targets
	addrs    atomic.Pointer[[]net.Addr] // where it listens, once it does
}

// listenerTLS is what one listener does about TLS.
type listenerTLS struct {
	conf     *tls.Config
	required bool
}

// newServer wires everything and connects to nothing.
func newServer(cfg *Config, log *slog.Logger) (*server, error) {
	s := &server{log: log, started: time.Now(), registry: prometheus.NewRegistry(), levers: make(chan lever)}
	s.config.Store(cfg)
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildMetric())
	s.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pgweir_config_reloads_total", Help: "Reloads of the configuration by result.",
	}, []string{"result"})
	s.registry.MustRegister(s.reloads)
	s.reloads.WithLabelValues("ok")
	s.reloads.WithLabelValues("error")
	if err := s.loadTLS(cfg); err != nil {
		return nil, err
	}
	if err := s.loadPeers(cfg); err != nil {
		return nil, err
	}
	var err error
	if s.console, err = s.newConsole(); err != nil {
		return nil, err
	}
	if err := s.buildProxy(cfg); err != nil {
		return nil, err
	}
	s.admin, err = admin.New(admin.Config{
		Source: &shown{s}, Gatherer: s.registry, Build: buildInfo().String(), Started: s.started, Log: log,
	})
	return s, err
}

// buildMetric is build_info.
func buildMetric() prometheus.Collector {
	b := buildInfo()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pgweir_build_info", Help: "Always 1; the labels tell version and build.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	}, func() float64 { return 1 })
}

// loadTLS reads the certificates of all listeners.
func (s *server) loadTLS(cfg *Config) error {
	var all []listenerTLS
	for _, l := range cfg.Listen {
		t := l.TLS
		if t == (ClientTLS{}) {
			t = cfg.TLS
		}
		conf, err := t.Config()
		if err != nil {
			return err
		}
		all = append(all, listenerTLS{conf, t.Required()})
	}
	s.tls.Store(&all)
	return nil
}

// loadPeers makes the other processes known, and reads the certificates for them.
func (s *server) loadPeers(cfg *Config) error {
	conf, err := cfg.PeerTLS.forPool()
	if err != nil {
		return fmt.Errorf("peer_tls: %w", err)
	}
	all := make(map[int]pool.Target)
	for _, p := range cfg.Peers {
		all[p.Process] = pool.Target{Addr: p.Addr, TLS: conf}
	}
	s.peers.Store(&all)
	return nil
}

// peer is proxy.Config.Peer.
func (s *server) peer(process int) (proxy.Peer, bool) {
	target, ok := (*s.peers.Load())[process]
	return proxy.Peer{Target: target, Timeout: s.config.Load().Pool.CancelTimeout}, ok
}

// buildProxy makes the pool, the clusters and the proxy in front of them.
func (s *server) buildProxy(cfg *Config) error {
	poolMetrics, err := pool.NewMetrics(s.registry)
	if err != nil {
		return err
	}
	pc := pool.DefaultConfig()
	pc.Limits = s.limits
	if s.pool, err = pool.New(pc, poolMetrics); err != nil {
		return err
	}
	metrics, err := proxy.NewMetrics(s.registry)
	if err != nil {
		return err
	}
	shared := sharedMetrics{health: health.NewMetrics(s.registry), proxy: metrics}
	for _, cl := range cfg.Clusters {
		m, err := newMember(cfg, s.config.Load, cl, &shared, s.registry, s.log)
		if err != nil {
			return fmt.Errorf("cluster %q: %w", cl.Name, err)
		}
		s.clusters = append(s.clusters, m)
	}
	turns, err := turn.New()
	if err != nil {
		return err
	}
	classes := router.DefaultConfig()
	classes.GiveWay = turns.Give
	conf := proxy.DefaultConfig()
	conf.Resolve, conf.GiveWay = s.resolve, turns.Give
	conf.ClientTLS = func(listener int) (*tls.Config, bool) {
		t := (*s.tls.Load())[listener]
		return t.conf, t.required
	}
	conf.Admission, conf.HoldMax = admission(cfg), cfg.Hold.Max
	conf.UnknownSQLState, conf.Classifier, conf.Pool, conf.Metrics, conf.Log = cfg.UnknownSQLState, router.New(classes), s.pool, metrics, s.log
	conf.Console, conf.Peer = s.consoleOf(), s.peer
	if cfg.Process != nil {
		conf.Process = *cfg.Process
	}
	s.proxy, err = proxy.New(conf)
	return err
}

// admission is who may come in.
func admission(cfg *Config) proxy.Admission {
	return proxy.Admission{LoginTimeout: cfg.ClientLoginTimeout, MaxClients: cfg.MaxClientConn}
}

// limits is pool.Config.Limits: nothing is kept open for a database that is paused.
func (s *server) limits(cluster, entry, user string) pool.Limits {
	l := s.config.Load().PoolLimits(cluster, entry, user)
	if l.Min > 0 && s.proxy.Paused(entry) {
		l.Min = 0
	}
	return l
}

// member is the running cluster of that name.
func (s *server) member(name string) *member {
	for _, m := range s.clusters {
		if m.name == name {
			return m
		}
	}
	panic("BUG: a database names a cluster that is not running")
}

// run serves until ctx ends, in the order that makes each part see the ones it needs: admin,
// monitors, first snapshot, listeners, ready; and backwards at the end.
func (s *server) run(ctx context.Context) error {
	cfg := s.config.Load()
	if _, err := memlimit.Set(memlimit.WithRatio(0.9), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		s.log.Debug("memory limit", "error", err)
	}
	listeners, err := listenAll(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	if cfg.Admin.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Admin.Listen)
		if err != nil {
			closeAll(listeners)
			return fmt.Errorf("listening for HTTP: %w", err)
		}
		wg.Go(func() { _ = s.admin.Serve(parts, l) })
		s.log.Info("admin listens", "address", l.Addr())
	}
	wg.Go(func() { _ = s.pool.Run(parts) })
	wg.Go(func() { _ = s.console.Run(parts) })
	for _, m := range s.clusters {
		m.run(parts, &wg, s.pool)
	}
	for _, m := range s.clusters {
		m.awaitFirst(ctx)
	}
	var addrs []net.Addr
	for _, l := range listeners {
		addrs = append(addrs, l.Addr())
		s.log.Info("listening", "address", l.Addr())
	}
	s.addrs.Store(&addrs)
	s.ready.Store(true)
	go func() {
		<-ctx.Done()
		s.ready.Store(false)
	}()
	s.proxy.Serve(ctx, cfg.DrainTimeout, listeners...)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := s.pool.Close(closing); err != nil {
		s.log.Warn("closing the pool", "error", err)
	}
	return nil
}

// closeTimeout bounds the closing of the connections to nodes.
const closeTimeout = 5 * time.Second

// listenAll opens all listeners or none.
func listenAll(ctx context.Context, conf []Listener) ([]net.Listener, error) {
	var all []net.Listener
	for _, c := range conf {
		network, addr := "tcp", c.Addr
		if strings.HasPrefix(addr, "/") {
			network = "unix"
		}
		lc := net.ListenConfig{}
		if c.ReusePort {
			lc.Control = reusePort
		}
		l, err := lc.Listen(ctx, network, addr)
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("listening for clients: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// closeAll closes listeners.
func closeAll(all []net.Listener) {
	for _, l := range all {
		_ = l.Close()
	}
}

// errStopped is the cause with which serve ends by a signal.
var errStopped = errors.New("stopped by a signal")

// lever is what the console has the process do.
type lever struct {
	order console.Order // RELOAD or SHUTDOWN
	done  chan<- error  // buffered
}

// obey carries out signals and what comes from the console until ctx ends: HUP reloads, TERM and INT let clients finish
// their transactions, a second one or QUIT ends at once.
func (s *server) obey(ctx context.Context, signals <-chan os.Signal, source *Source, stop context.CancelCauseFunc) {
	stopping := false
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-s.levers:
			switch {
			case l.order.Verb == console.Reload:
				l.done <- s.reload(source)
				continue
			case l.order.Wait == console.WaitNobody:
				l.done <- nil
				stop(errStopped)
				s.proxy.Cut()
			case l.order.Wait == console.WaitClients:
				s.proxy.Linger()
				l.done <- nil
				stop(errStopped)
			default:
				l.done <- nil
				stop(errStopped)
			}
			stopping = true
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				_ = s.reload(source) // it says itself what went wrong
			case sig == syscall.SIGQUIT || stopping:
				stop(errStopped)
				s.proxy.Cut()
			default:
				s.log.Info("stopping: clients may finish their transactions", "signal", sig.String(), "at_most", s.config.Load().DrainTimeout)
				stopping = true
				stop(errStopped)
			}
		}
	}
}

// reload reads the configuration again; with an error the running one stays. Everything is logged.
func (s *server) reload(source *Source) error {
	next, err := source.Load()
	if err != nil {
		s.reloads.WithLabelValues("error").Inc()
		s.log.Error("the configuration was not reloaded; the running one stays", "error", err)
		return err
	}
	r := Reload(s.config.Load(), next)
	if err := errors.Join(s.loadTLS(r.Config), s.loadPeers(r.Config)); err != nil {
		s.reloads.WithLabelValues("error").Inc()
		s.log.Error("the configuration was not reloaded; the running one stays", "error", err)
		return err
	}
	s.config.Store(r.Config)
	s.pool.Refresh()
	s.proxy.Refresh(admission(r.Config))
	s.reloads.WithLabelValues("ok").Inc()
	for _, c := range r.Applied {
		s.log.Info("configuration changed", "change", c.String())
	}
	for _, c := range r.Waiting {
		s.log.Warn("configuration change waits for a restart", "change", c.String())
	}
	return nil
}
