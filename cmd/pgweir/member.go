package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"pgweir/health"
	"pgweir/internal/auth"
	"pgweir/internal/catalog"
	"pgweir/proxy"
	"pgweir/proxy/pool"
)

// member is one cluster with all that runs for it.
type member struct {
	name     string
	conf     *Cluster
	log      *slog.Logger
	current  func() *Config // the configuration in force
	password *PasswordSource
	monitor  *health.Monitor
	catalog  *catalog.Manager
	query    *auth.Query // nil where users are not asked of the nodes
	cluster  *proxy.Cluster
}

// sharedMetrics are the metrics that all clusters count in.
type sharedMetrics struct {
	health  *health.Metrics
	proxy   *proxy.Metrics
	catalog *catalog.Metrics
}

// newMember wires one cluster.
func newMember(cfg *Config, current func() *Config, cl *Cluster, shared *sharedMetrics, reg prometheus.Registerer, log *slog.Logger) (*member, error) {
	m := &member{name: cl.Name, conf: cl, current: current, log: log.With("cluster", cl.Name), password: NewPasswordSource(cl.Monitor)}
	hc, err := m.healthConfig(cfg)
	if err != nil {
		return nil, err
	}
	if m.monitor, err = health.New(hc, shared.health); err != nil {
		return nil, err
	}
	if shared.catalog == nil {
		shared.catalog = catalog.NewMetrics(reg)
	}
	cc := catalog.DefaultConfig()
	cc.Cluster, cc.Logger, cc.Metrics = cl.Name, m.log, shared.catalog
	cc.Target = func(ctx context.Context, database string) (*pgconn.Config, error) { return m.login(ctx, database) }
	cc.Rules = catalog.Rules{
		ReadOnlyFunctions: cl.Routing.ReadOnlyFunctions, SessionSafeFunctions: cl.Routing.SessionSafeFunctions,
		TrustedExtensions: cl.Routing.TrustedExtensions,
	}
	if m.catalog, err = catalog.New(cc); err != nil {
		return nil, err
	}
	users, err := m.users(cfg)
	if err != nil {
		return nil, err
	}
	nodeTLS, err := cl.ServerTLS.forPool()
	if err != nil {
		return nil, err
	}
	m.cluster = proxy.NewCluster(cl.Name, m.monitor, m.catalog, users, nodeTLS, shared.proxy)
	return m, nil
}

// healthConfig is the monitor's part of the configuration.
func (m *member) healthConfig(cfg *Config) (health.Config, error) {
	cl := m.conf
	hc := health.DefaultConfig()
	hc.Cluster, hc.StateDir, hc.Log = cl.Name, cfg.StateDir, m.log
	if cl.Discover != "" {
		hc.Discover = "dns://" + strings.TrimPrefix(cl.Discover, "dns://")
	}
	for _, n := range cl.Nodes {
		hc.Nodes = append(hc.Nodes, health.NodeConfig{
			Name: n.Name, Host: n.Host, Port: n.Port, Zone: n.Zone, Tags: n.Tags, Weight: n.Weight, NoReads: !n.Reads, NoPromote: !n.Promote,
		})
	}
	hc.Login = health.Login{
		User: cl.Monitor.User, Database: cl.Monitor.Database, SSLMode: cl.ServerTLS.Mode,
		SSLRootCert: cl.ServerTLS.CA, SSLCert: cl.ServerTLS.Cert, SSLKey: cl.ServerTLS.Key,
		Password: func(ctx context.Context) (string, error) { return m.password.Password(ctx, "", 0) },
	}
	hc.ProbeInterval, hc.ProbeTimeout, hc.Fall, hc.Rise = cl.Probe.Interval, cl.Probe.Timeout, cl.Probe.Fall, cl.Probe.Rise
	hc.TrustWindow, hc.StartupGrace, hc.PrimaryRequire = cl.TrustWindow, cl.StartupGrace, cl.PrimaryRequire
	hc.SamplingMinInterval, hc.MaxLagBytes, hc.MaxLagTime = cl.SamplingInterval, cl.MaxLag.Bytes, cl.MaxLag.Time
	hc.StandbyInterval, hc.FreshInterval = cl.Probe.StandbyInterval, cl.Probe.FreshInterval
	hc.DiscoveryInterval, hc.DiscoveryForget = cl.DiscoveryInterval, cl.DiscoveryForget
	return hc, nil
}

// users is who may log in: the users of the configuration, the file, what the nodes say.
func (m *member) users(cfg *Config) (auth.Source, error) {
	if _, err := passwords(cfg); err != nil {
		return nil, err
	}
	chain := auth.Chain{&configUsers{current: m.current}, &monitorUser{m: m}}
	if cfg.Auth.File != "" {
		file, err := auth.NewUserlist(cfg.Auth.File, m.log)
		if err != nil {
			return nil, err
		}
		chain = append(chain, file)
	}
	if cfg.Auth.Query != "off" {
		qc := auth.DefaultQueryConfig(func(ctx context.Context) (*pgconn.Config, error) { return m.login(ctx, m.conf.Monitor.Database) })
		if cfg.Auth.Query != "default" {
			qc.SQL = cfg.Auth.Query
		}
		query, err := auth.NewQuery(qc)
		if err != nil {
			return nil, err
		}
		m.query = query
		chain = append(chain, query)
	}
	return chain, nil
}

// configUsers are the users whose passwords stand in the configuration that is in force now.
type configUsers struct {
	current func() *Config
	known   atomic.Pointer[configPasswords]
}

// configPasswords are the secrets of one configuration.
type configPasswords struct {
	of      *Config
	secrets auth.Static
}

// passwords are the secrets that a configuration gives its users.
func passwords(cfg *Config) (auth.Static, error) {
	static := auth.Static{}
	for name, u := range cfg.Users {
		if u.Password == "" {
			continue
		}
		secret, err := auth.ParseSecret(string(u.Password))
		if err != nil {
			return nil, fmt.Errorf("users.%s.password: %w", name, err)
		}
		static[name] = secret
	}
	return static, nil
}

// Lookup is the configured secret of the user.
func (u *configUsers) Lookup(ctx context.Context, user string) (auth.Secret, error) {
	cfg, known := u.current(), u.known.Load()
	if known == nil || known.of != cfg {
		secrets, err := passwords(cfg)
		if err != nil {
			return auth.Secret{}, err
		}
		known = &configPasswords{cfg, secrets}
		u.known.Store(known)
	}
	return known.secrets.Lookup(ctx, user)
}

// monitorUser lets the monitor's own user in with the monitor's password, even while no node can
// be asked for users.
type monitorUser struct {
	m      *member
	secret atomic.Pointer[monitorSecret]
}

// monitorSecret is the secret of a password; making it anew would cost every login a key derivation.
type monitorSecret struct {
	password string
	secret   auth.Secret
}

// Lookup is the monitor's password, for the monitor's name only.
func (u *monitorUser) Lookup(ctx context.Context, user string) (auth.Secret, error) {
	if user != u.m.conf.Monitor.User {
		return auth.Secret{}, auth.ErrNoUser
	}
	password, err := u.m.password.Password(ctx, "", 0)
	if err != nil || password == "" {
		return auth.Secret{}, auth.ErrNoUser
	}
	known := u.secret.Load()
	if known == nil || known.password != password {
		known = &monitorSecret{password, auth.Password(password)}
		u.secret.Store(known)
	}
	return known.secret, nil
}

// login is how the monitor logs in to a database of the node that knows best: the primary, or
// any standby that is up while there is none.
func (m *member) login(ctx context.Context, database string) (*pgconn.Config, error) {
	node := m.bestNode()
	if node == nil {
		return nil, fmt.Errorf("no node of cluster %q is up", m.name)
	}
	host, port := node.Addr, 5432
	if h, p, err := net.SplitHostPort(node.Addr); err == nil {
		host = h
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("address of node %s: %w", node.Name, err)
		}
	}
	password, err := m.password.Password(ctx, host, port)
	if err != nil {
		return nil, err
	}
	// pgconn reads what it is not told from the environment and from files: sslmode, host and the
	// rest are all told, so that nothing of the surroundings leaks in.
	conf, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable application_name=pgweir",
		dsnQuote(host), port, dsnQuote(m.conf.Monitor.User), dsnQuote(database)))
	if err != nil {
		return nil, fmt.Errorf("login of the monitor: %w", err)
	}
	conf.Password, conf.Fallbacks, conf.TLSConfig = password, nil, nil
	encrypted := m.conf.ServerTLS.Tried()
	switch {
	case strings.HasPrefix(node.Addr, "/"):
		encrypted = false // a Unix socket has no TLS
	case encrypted && m.conf.ServerTLS.PlainAllowed(): // prefer
		if encrypted, err = offersTLS(ctx, node.Addr); err != nil {
			return nil, err
		}
	}
	if encrypted {
		if conf.TLSConfig, err = m.conf.ServerTLS.Config(node.Host); err != nil {
			return nil, err
		}
	}
	return conf, nil
}

// dsnQuote makes a value of a keyword connection string.
func dsnQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// bestNode is the primary, or a standby that is up.
func (m *member) bestNode() *health.Node {
	snap := m.monitor.Snapshot()
	if snap.Primary != nil {
		return snap.Primary
	}
	for _, n := range snap.Nodes {
		if n.Role == health.RoleStandby && n.State == health.StateUp {
			return n
		}
	}
	return nil
}

// run starts what works for the cluster until ctx ends.
func (m *member) run(ctx context.Context, wg *sync.WaitGroup, conns *pool.Pool) {
	wg.Go(func() { _ = m.monitor.Run(ctx) })
	wg.Go(func() { _ = m.catalog.Run(ctx) })
	wg.Go(func() { m.follow(ctx, conns) })
	if m.query != nil {
		wg.Go(func() {
			<-ctx.Done()
			m.query.Close()
		})
	}
}

// follow closes the connections that a change of the snapshot has made worthless: those to a node that is
// down, those to a former primary, and those that began with settings which have changed.
func (m *member) follow(ctx context.Context, conns *pool.Pool) {
	var primary *health.Node
	settings := make(map[int]string) // by node, as last seen
	for {
		changed := m.monitor.Changed()
		snap := m.monitor.Snapshot()
		if snap.Primary != nil {
			if primary != nil && primary.ID != snap.Primary.ID {
				conns.Break(m.name, primary.ID)
				m.catalog.Reset()
			}
			primary = snap.Primary
		}
		for _, n := range snap.Nodes {
			if n.Settings != "" && n.Settings != settings[n.ID] {
				if settings[n.ID] != "" {
					conns.CloseNode(m.name, n.ID)
					m.cluster.SettingsChanged()
				}
				settings[n.ID] = n.Settings
			}
			switch n.State {
			case health.StateDown:
				conns.Break(m.name, n.ID)
			case health.StateDraining:
				conns.CloseNode(m.name, n.ID)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitFirst waits until every node has been asked once, or a while has passed: clients that come
// earlier would only be held.
func (m *member) awaitFirst(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.conf.Probe.Timeout+m.conf.Probe.Interval)
	defer cancel()
	for {
		changed := m.monitor.Changed()
		if m.seen() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// seen says whether the cluster has had one look: something is known of every node.
func (m *member) seen() bool {
	snap := m.monitor.Snapshot()
	for _, n := range snap.Nodes {
		if n.State == health.StateUnknown {
			return false
		}
	}
	return len(snap.Nodes) > 0
}
