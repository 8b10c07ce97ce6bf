package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/pgwire"
)

// monitorLogin is how pgweir itself logs in to the nodes of one cluster.
type monitorLogin struct {
	cluster  *Cluster
	password *PasswordSource
	params   map[string]string // startup parameters
}

// newMonitorLogin returns the login of a cluster's monitor; params are its startup parameters.
func newMonitorLogin(cl *Cluster, params map[string]string) monitorLogin {
	return monitorLogin{cluster: cl, password: NewPasswordSource(cl.Monitor), params: params}
}

// connect opens a connection to a database of a node, "" for the monitor's own, in the order
// that the mode of server_tls says. Nothing of libpq's environment is used but the password file.
func (m monitorLogin) connect(ctx context.Context, n Node, database string) (*pgconn.PgConn, error) {
	plain, err := m.config(ctx, n, database)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := m.cluster.ServerTLS.Config(n.Host)
	if err != nil {
		return nil, err
	}
	if tlsConfig == nil || strings.HasPrefix(n.Host, "/") {
		return pgconn.ConnectConfig(ctx, plain)
	}
	encrypted := plain.Copy()
	encrypted.TLSConfig = tlsConfig
	if !m.cluster.ServerTLS.Tried() { // allow
		conn, err := pgconn.ConnectConfig(ctx, plain)
		if err == nil || !needsTLS(err) {
			return conn, err
		}
		return pgconn.ConnectConfig(ctx, encrypted)
	}
	if m.cluster.ServerTLS.PlainAllowed() { // prefer
		offered, err := offersTLS(ctx, n.Addr())
		if err != nil {
			return nil, err
		}
		if !offered {
			return pgconn.ConnectConfig(ctx, plain)
		}
	}
	return pgconn.ConnectConfig(ctx, encrypted)
}

// offersTLS asks a node whether it has TLS, over a connection of its own.
func offersTLS(ctx context.Context, addr string) (bool, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return false, err
		}
	}
	if _, err := conn.Write(pgwire.AppendSSLRequest(nil)); err != nil {
		return false, fmt.Errorf("ask %s for TLS: %w", addr, err)
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return false, fmt.Errorf("ask %s for TLS: %w", addr, err)
	}
	return answer[0] == 'S', nil
}

// again opens one more connection as an earlier one turned out: encrypted or not, and at the
// first attempt, so that the connections behind a balancer can be counted.
func (m monitorLogin) again(ctx context.Context, n Node, encrypted bool) (*pgconn.PgConn, error) {
	cfg, err := m.config(ctx, n, "")
	if err != nil {
		return nil, err
	}
	if encrypted {
		if cfg.TLSConfig, err = m.cluster.ServerTLS.Config(n.Host); err != nil {
			return nil, err
		}
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

// config is the connection without TLS.
func (m monitorLogin) config(ctx context.Context, n Node, database string) (*pgconn.Config, error) {
	password, err := m.password.Password(ctx, n.Host, n.Port)
	if err != nil {
		return nil, err
	}
	// Everything that the environment could fill in is set here or below.
	cfg, err := pgconn.ParseConfig("host=localhost port=5432 user=x password=x dbname=x sslmode=disable target_session_attrs=any connect_timeout=0")
	if err != nil {
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	cfg.Host, cfg.Port = n.Host, uint16(n.Port) //nolint:gosec // checked with the configuration
	cfg.User, cfg.Password = m.cluster.Monitor.User, password
	cfg.Database = database
	if database == "" {
		cfg.Database = m.cluster.Monitor.Database
	}
	cfg.Fallbacks, cfg.TLSConfig = nil, nil
	cfg.RuntimeParams = maps.Clone(m.params)
	return cfg, nil
}

// needsTLS says whether a node takes nobody without TLS.
func needsTLS(err error) bool {
	return strings.Contains(err.Error(), "no encryption") || strings.Contains(err.Error(), "SSL off")
}

// members are the nodes of a cluster: those that are configured, or those that its source of
// nodes names now.
func (c *Cluster) members(ctx context.Context) ([]Node, error) {
	if c.Discover == "" {
		return c.Nodes, nil
	}
	host, port, err := parseAddr(c.Discover, 5432)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var out []Node
	for _, a := range addrs {
		out = append(out, Node{Host: a, Port: port, Weight: 1, Reads: true, Promote: true})
	}
	nameNodes(out)
	return out, nil
}
