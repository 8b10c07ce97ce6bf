package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"pgweir/internal/pgwire"
)

// Config is what holds for all connections of a Pool.
type Config struct {
	// Limits is what holds for the pools of a user for an entry; nil: Default for all. It is called when a pool
	// is made and by Refresh, must be quick and must not call the pool.
	Limits func(cluster, entry, user string) Limits
	// Default is the limits where there is no such function.
	Default Limits
	// ResetTimeout bounds the DISCARD ALL of a Put.
	ResetTimeout time.Duration
	// KeepAliveIdle, KeepAliveInterval and KeepAliveCount are those of TCP: after so long a
	// silence so many probes at this distance decide that the node's host is gone.
	KeepAliveIdle     time.Duration
	KeepAliveInterval time.Duration
	KeepAliveCount    int
	// UserTimeout is TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged. Linux only.
	UserTimeout time.Duration
	// NodeSettings are sent at startup unless the Spec sets them: they let a node notice that
	// we are gone, so that a lease that was given up leaves no ghost behind.
	NodeSettings []pgwire.Param
	// Dial replaces the way to a socket; nil: TCP and Unix sockets of this host with the
	// options above. The network is "tcp" or "unix".
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// DefaultConfig is PgBouncer's habits where it has them, and a LAN's otherwise.
func DefaultConfig() Config {
	return Config{
		Default:           DefaultLimits(),
		ResetTimeout:      5 * time.Second,
		KeepAliveIdle:     10 * time.Second,
		KeepAliveInterval: 3 * time.Second,
		KeepAliveCount:    3,
		UserTimeout:       20 * time.Second,
		NodeSettings: []pgwire.Param{
			{Name: "client_connection_check_interval", Value: "2000"},
			{Name: "tcp_keepalives_idle", Value: "10"},
			{Name: "tcp_keepalives_interval", Value: "3"},
			{Name: "tcp_keepalives_count", Value: "3"},
			{Name: "tcp_user_timeout", Value: "20000"},
		},
	}
}

// Validate returns everything that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	if err := c.Default.validate(); err != nil {
		errs = append(errs, err)
	}
	if c.KeepAliveCount < 1 {
		errs = append(errs, fmt.Errorf("KeepAliveCount: %d: must be at least 1", c.KeepAliveCount))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"ResetTimeout", c.ResetTimeout, time.Millisecond},
		{"KeepAliveIdle", c.KeepAliveIdle, time.Second},
		{"KeepAliveInterval", c.KeepAliveInterval, time.Second},
		{"UserTimeout", c.UserTimeout, 0},
	} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("%s: %v: must be at least %v", d.name, d.value, d.least))
		}
	}
	return errors.Join(errs...)
}
