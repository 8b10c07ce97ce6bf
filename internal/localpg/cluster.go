package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Cluster is one primary and its standbys on this machine. Made by New, ended by Close.
type Cluster struct {
	Nodes    []*Node // in the order of their IDs; Nodes[0] is the first primary
	Password string  // of Superuser

	cfg     Config
	bins    Bins
	account account
	dir     string
	spawner *spawner
	wg      sync.WaitGroup // goroutines that wait for servers to end
	closed  sync.Once
}

// startTimeout bounds the wait for a server to answer when the caller's context does not.
const startTimeout = 60 * time.Second

// New makes and starts a cluster; it returns when all standbys stream. After an error nothing is
// left behind; after success the caller must call Close. ctx bounds only New itself.
func New(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check the cluster's configuration: %w", err)
	}
	if cfg.Bins.Dir == "" {
		bins, err := Find(0)
		if err != nil {
			return nil, err
		}
		cfg.Bins = bins
	}
	acc, err := cfg.account()
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, bins: cfg.Bins, account: acc, Password: cfg.Password}
	if c.Password == "" {
		c.Password = rand.Text()
	}
	if err := c.makeDirs(); err != nil {
		return nil, err
	}
	c.spawner = newSpawner()
	if err := c.build(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// makeDirs makes the cluster's directory, which its servers' user owns and nobody else enters.
func (c *Cluster) makeDirs() error {
	var err error
	if c.cfg.Dir == "" {
		c.dir, err = os.MkdirTemp("", "pgweir-pg-")
	} else if c.dir, err = filepath.Abs(c.cfg.Dir); err == nil {
		err = os.MkdirAll(c.dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	if list, err := os.ReadDir(c.dir); err != nil || len(list) > 0 {
		return errors.Join(fmt.Errorf("use %s for a cluster: it must be an empty directory", c.dir), err)
	}
	if n := len(filepath.Join(c.SocketDir(), ".s.PGSQL.65535")); n > 103 {
		return fmt.Errorf("use %s for a cluster: its Unix sockets would have names of %d bytes, more than the system allows", c.dir, n)
	}
	if err := os.Mkdir(c.SocketDir(), 0o700); err != nil {
		return fmt.Errorf("make the socket directory: %w", err)
	}
	return errors.Join(c.own(c.dir), c.own(c.SocketDir()))
}

// own gives a file or directory to the servers' user.
func (c *Cluster) own(path string) error {
	if !c.account.other {
		return nil
	}
	if err := os.Lchown(path, c.account.uid, c.account.gid); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", path, err)
	}
	return nil
}

// build makes all nodes and waits until they stream.
func (c *Cluster) build(ctx context.Context) error {
	for i := range c.cfg.Standbys + 1 {
		p, err := takePort()
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, newNode(c, i, p))
	}
	first := c.Nodes[0]
	if err := c.initdb(ctx, first); err != nil {
		return err
	}
	if err := first.startFirst(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes[1:] {
		if err := n.clone(ctx, first); err != nil {
			return err
		}
		if err := n.startFirst(ctx); err != nil {
			return err
		}
	}
	if err := c.WaitStreaming(ctx, first); err != nil {
		return err
	}
	if c.cfg.SyncStandbys == "" {
		return nil
	}
	for _, n := range c.Nodes {
		n.setSync(c.cfg.SyncStandbys)
		if err := n.writeConf(); err != nil {
			return err
		}
		if err := n.Reload(ctx); err != nil {
			return err
		}
	}
	return nil
}

// initdb makes the data directory of the first node.
func (c *Cluster) initdb(ctx context.Context, n *Node) error {
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", n.Name, err)
	}
	if err := c.own(n.dir); err != nil {
		return err
	}
	pw := filepath.Join(c.dir, "password")
	if err := c.writeFile(pw, c.Password+"\n"); err != nil {
		return err
	}
	err := c.run(ctx, nil, "initdb", "-D", n.data, "-U", Superuser, "--pwfile", pw, "-E", "UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host="+c.cfg.passwordEncryption(), "--no-sync", "--data-checksums")
	if err = errors.Join(err, os.Remove(pw)); err != nil {
		return err
	}
	conf := filepath.Join(n.data, "postgresql.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		return fmt.Errorf("read the configuration that initdb wrote: %w", err)
	}
	files := map[string]string{"postgresql.conf": string(text) + c.cfg.settings(), "pg_hba.conf": c.cfg.hba()}
	for name, data := range c.cfg.Files {
		files[name] = string(data)
	}
	for name, data := range files {
		if err := c.writeFile(filepath.Join(n.data, name), data); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that only the servers' user can read, replacing one that is there.
func (c *Cluster) writeFile(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := c.own(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Dir is the cluster's directory.
func (c *Cluster) Dir() string { return c.dir }

// SocketDir is the directory of the Unix sockets, one a node, told apart by port. Whoever can
// enter it (the servers' user and root) logs in as any role without a password.
func (c *Cluster) SocketDir() string { return filepath.Join(c.dir, "s") }

// Bins are the programs that the cluster runs.
func (c *Cluster) Bins() Bins { return c.bins }

// Environ is an environment for running the programs of Bins by hand: like this process's, but
// without variables that steer libpq, and with the library path that relocatable packages need.
func (c *Cluster) Environ() []string { return c.bins.environ() }

// Primary asks all running nodes and returns the one that is not in recovery; of several, the one
// on the highest timeline.
func (c *Cluster) Primary(ctx context.Context) (*Node, error) {
	var best *Node
	var line string
	var errs []error
	for _, n := range c.Nodes {
		if !n.Running() || n.Paused() {
			continue
		}
		out, err := n.Value(ctx, "postgres", "SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END")
		switch {
		case err != nil:
			errs = append(errs, err)
		case out > line:
			best, line = n, out
		}
	}
	if best == nil {
		return nil, errors.Join(append([]error{errors.New("look for the primary: no running node is one")}, errs...)...)
	}
	return best, nil
}

// Standbys asks all running nodes and returns those in recovery.
func (c *Cluster) Standbys(ctx context.Context) ([]*Node, error) {
	var list []*Node
	for _, n := range c.Nodes {
		if !n.Running() || n.Paused() {
			continue
		}
		rec, err := n.InRecovery(ctx)
		if err != nil {
			return nil, err
		}
		if rec {
			list = append(list, n)
		}
	}
	return list, nil
}

// WaitStreaming waits until every other running node streams from primary.
func (c *Cluster) WaitStreaming(ctx context.Context, primary *Node) error {
	return poll(ctx, func(ctx context.Context) (string, error) {
		rows, err := primary.Query(ctx, "postgres", "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
		if err != nil {
			return "", err
		}
		here := make(map[string]bool)
		for _, r := range rows {
			here[r[0]] = true
		}
		var missing []string
		for _, n := range c.Nodes {
			if n != primary && n.Running() && !n.Paused() && !here[n.Name] {
				missing = append(missing, n.Name)
			}
		}
		if len(missing) > 0 {
			return fmt.Sprintf("wait for standbys to stream from %s: missing %s", primary.Name, strings.Join(missing, ", ")), nil
		}
		return "", nil
	})
}

// WaitReplayed waits until every running standby has replayed what the primary has written by now.
func (c *Cluster) WaitReplayed(ctx context.Context) error {
	primary, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	lsn, err := primary.Written(ctx)
	if err != nil {
		return err
	}
	standbys, err := c.Standbys(ctx)
	if err != nil {
		return err
	}
	for _, n := range standbys {
		if err := n.WaitReplayed(ctx, lsn); err != nil {
			return err
		}
	}
	return nil
}

// Exec runs SQL on the primary, as Superuser.
func (c *Cluster) Exec(ctx context.Context, db, sql string) error {
	p, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	return p.Exec(ctx, db, sql)
}

// InstallNodePort makes the function node_port() in schema public of db: the port of the node
// that runs it, declared STABLE, so that a read can be asked who answered it. It waits until the
// standbys have it.
func (c *Cluster) InstallNodePort(ctx context.Context, db string) error {
	err := c.Exec(ctx, db, `CREATE OR REPLACE FUNCTION public.node_port() RETURNS integer STABLE LANGUAGE sql AS $$ SELECT pg_catalog.current_setting('port')::integer $$`)
	if err != nil {
		return err
	}
	return c.WaitReplayed(ctx)
}

// ByPort returns the node with that port, nil if there is none.
func (c *Cluster) ByPort(port int) *Node {
	for _, n := range c.Nodes {
		if n.Port() == port {
			return n
		}
	}
	return nil
}

// Close ends all servers at once and removes the directory. It may be called several times.
func (c *Cluster) Close() error {
	var errs []error
	c.closed.Do(func() {
		for _, n := range c.Nodes {
			errs = append(errs, n.Kill9())
			n.port.release()
		}
		c.wg.Wait()
		c.spawner.close()
		if err := os.RemoveAll(c.dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the cluster's directory: %w", err))
		}
	})
	return errors.Join(errs...)
}

// poll calls try every 20 ms until it returns neither a complaint nor an error, or ctx or
// startTimeout ends; then the last complaint or error is reported.
func poll(ctx context.Context, try func(context.Context) (complaint string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		complaint, err := try(ctx)
		if complaint == "" && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if complaint != "" {
				err = errors.New(complaint)
			}
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
