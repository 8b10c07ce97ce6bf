package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says how one cluster is watched. Start from DefaultConfig; the names in the comments are
// those of the configuration file.
type Config struct {
	Cluster string       // the cluster's name, first part of every key and label
	Nodes   []NodeConfig // nodes
	// Discover is discover: "dns://name:port", every address of the name a node; "" for none.
	Discover string
	// StateDir is state_dir, where the memory of rule 5 lives; "" keeps it in the process only.
	StateDir string
	Login    Login

	ProbeInterval   time.Duration // probe.interval: between two probes of a node
	StandbyInterval time.Duration // probe.standby_interval: between two looks at whether a standby was promoted
	ProbeTimeout    time.Duration // probe.timeout
	FreshInterval   time.Duration // probe.fresh_interval: between two new connections made only to see whether one can be made
	Fall            int           // probe.fall: missed probes until a node is down
	Rise            int           // probe.rise: answered probes until it is up again
	TrustWindow     time.Duration // trust_window: evidence older than this is none
	StartupGrace    time.Duration // startup.grace: how long a primary without memory or majority waits to be accepted
	// PrimaryRequire is primary.require: "auto" (peers with three or more nodes), "peers", "none".
	PrimaryRequire string

	SamplingMinInterval time.Duration // sampling.min_interval: between two samples of a node while somebody waits
	MaxLagBytes         int64         // max_lag in bytes
	MaxLagTime          time.Duration // max_lag in time

	DiscoveryInterval time.Duration // discovery.interval: between two look-ups
	DiscoveryForget   time.Duration // discovery.forget: how long a node that left still counts for the majority

	Resolver Resolver     // who is asked for Discover; nil: the system's
	Log      *slog.Logger // which names the cluster; nil: slog.Default()
}

// NodeConfig names one node and says what it may be used for. NodeAt makes one with defaults.
type NodeConfig struct {
	Name      string // "" takes host:port
	Host      string // name, address, or the directory of a Unix socket
	Port      int
	Zone      string
	Tags      []string
	Weight    int  // share of the reads; 0: never reads
	NoReads   bool // reads: false
	NoPromote bool // promote: false
	// ServerName is verified in the node's certificate instead of Host; "" for Host.
	ServerName string
}

// Login is how the probe connections log in to every node.
type Login struct {
	User     string
	Database string // "" takes postgres
	// Password is asked before every new connection; nil leaves it to PGPASSFILE.
	Password func(ctx context.Context) (string, error)
	// SSLMode is one of libpq's words, "" for prefer.
	SSLMode                      string
	SSLRootCert, SSLCert, SSLKey string // files, "" for none
}

// Resolver looks up the addresses behind Discover; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// DefaultConfig is every value that has a default, for a LAN.
func DefaultConfig() Config {
	return Config{
		ProbeInterval:       200 * time.Millisecond,
		StandbyInterval:     50 * time.Millisecond,
		ProbeTimeout:        500 * time.Millisecond,
		FreshInterval:       5 * time.Second,
		Fall:                3,
		Rise:                2,
		TrustWindow:         DefaultTrustWindow,
		StartupGrace:        5 * time.Second,
		PrimaryRequire:      "auto",
		SamplingMinInterval: 2 * time.Millisecond,
		MaxLagBytes:         16 << 20,
		MaxLagTime:          10 * time.Second,
		DiscoveryInterval:   5 * time.Second,
		DiscoveryForget:     10 * time.Minute,
	}
}

// DefaultPort is where a node listens when nothing else is said.
const DefaultPort = 5432

// NodeAt makes a node with weight 1 from "host", "host:port" or "[v6]:port".
func NodeAt(addr string) (NodeConfig, error) {
	n := NodeConfig{Host: addr, Port: DefaultPort, Weight: 1}
	bare := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if ip, err := netip.ParseAddr(bare); err == nil {
		n.Host = ip.String()
		return n, nil
	}
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		port, err := strconv.Atoi(addr[i+1:])
		if err != nil || port < 1 || port > 65535 {
			return n, fmt.Errorf("read node address %q: %q is no port", addr, addr[i+1:])
		}
		n.Host, n.Port = strings.TrimSuffix(strings.TrimPrefix(addr[:i], "["), "]"), port
	}
	if n.Host == "" {
		return n, fmt.Errorf("read node address %q: no host", addr)
	}
	return n, nil
}

// name is the node's name with its default.
func (n NodeConfig) name() string {
	if n.Name != "" {
		return n.Name
	}
	return net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
}

// addr is where to dial, and the key of the node in the memory.
func (n NodeConfig) addr() string {
	if strings.HasPrefix(n.Host, "/") {
		return fmt.Sprintf("%s/.s.PGSQL.%d", n.Host, n.Port)
	}
	return net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
}

// Validate reports everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Cluster == "" {
		bad("cluster: has no name")
	}
	if len(c.Nodes) == 0 && c.Discover == "" {
		bad("nodes: none, and no discover either")
	}
	if c.Discover != "" {
		if _, err := parseDiscover(c.Discover); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, validateNodes(c.Nodes)...)
	if c.Login.User == "" {
		bad("monitor.user: missing")
	}
	if m := c.Login.SSLMode; m != "" && !slices.Contains(sslModes(), m) {
		bad("monitor.sslmode: %q; accepted: %s", m, strings.Join(sslModes(), ", "))
	}
	for _, d := range c.durations() {
		if d.value <= 0 {
			bad("%s: %s; must be above zero", d.name, d.value)
		}
	}
	if c.StartupGrace < 0 {
		bad("startup.grace: %s; must not be negative", c.StartupGrace)
	}
	if c.Fall < 1 {
		bad("probe.fall: %d; must be at least 1", c.Fall)
	}
	if c.Rise < 1 {
		bad("probe.rise: %d; must be at least 1", c.Rise)
	}
	if c.MaxLagBytes < 0 {
		bad("max_lag: %d bytes; must not be negative", c.MaxLagBytes)
	}
	if c.ProbeInterval > 0 && c.TrustWindow > 0 && c.TrustWindow <= c.ProbeInterval {
		bad("trust_window: %s; must be longer than probe.interval (%s), or no node is ever trusted throughout", c.TrustWindow, c.ProbeInterval)
	}
	switch c.PrimaryRequire {
	case "", "auto", "peers", "none":
	default:
		bad("primary.require: %q; accepted: auto, peers, none", c.PrimaryRequire)
	}
	return errors.Join(errs...)
}

// namedDuration is one duration with the name that people know it by.
type namedDuration struct {
	name  string
	value time.Duration
}

// durations are all that must be above zero.
func (c Config) durations() []namedDuration {
	return []namedDuration{
		{"probe.interval", c.ProbeInterval},
		{"probe.standby_interval", c.StandbyInterval},
		{"probe.timeout", c.ProbeTimeout},
		{"probe.fresh_interval", c.FreshInterval},
		{"trust_window", c.TrustWindow},
		{"sampling.min_interval", c.SamplingMinInterval},
		{"max_lag", c.MaxLagTime},
		{"discovery.interval", c.DiscoveryInterval},
		{"discovery.forget", c.DiscoveryForget},
	}
}

// validateNodes reports what is wrong with a list of nodes, also one given on reload.
func validateNodes(nodes []NodeConfig) []error {
	var errs []error
	names, addrs := map[string]bool{}, map[string]bool{}
	for i, n := range nodes {
		at := fmt.Sprintf("nodes[%d]", i)
		if n.Host == "" {
			errs = append(errs, fmt.Errorf("%s: no host", at))
			continue
		}
		if n.Port < 1 || n.Port > 65535 {
			errs = append(errs, fmt.Errorf("%s: port %d; accepted: 1 to 65535", at, n.Port))
		}
		if n.Weight < 0 {
			errs = append(errs, fmt.Errorf("%s.weight: %d; must not be negative", at, n.Weight))
		}
		if names[n.name()] {
			errs = append(errs, fmt.Errorf("%s: the name %q is taken by another node", at, n.name()))
		}
		if addrs[n.addr()] {
			errs = append(errs, fmt.Errorf("%s: the address %s is taken by another node", at, n.addr()))
		}
		names[n.name()], addrs[n.addr()] = true, true
	}
	return errs
}

// requirePeers says whether rule 8 is on for that many nodes.
func (c Config) requirePeers(nodes int) bool {
	switch c.PrimaryRequire {
	case "peers":
		return true
	case "none":
		return false
	}
	return nodes >= 3
}

// sslModes are libpq's words.
func sslModes() []string {
	return []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
}
