package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoRewind is returned by Rewind where the binaries have no pg_rewind.
var ErrNoRewind = errors.New("these binaries have no pg_rewind")

// writeConf writes node.conf, what differs from node to node.
func (n *Node) writeConf() error {
	n.mu.Lock()
	follow, sync := n.mu.follow, n.mu.sync
	n.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "port = %d\n", n.Port())
	fmt.Fprintf(&b, "cluster_name = %s\n", quoteConf(n.Name))
	fmt.Fprintf(&b, "unix_socket_directories = %s\n", quoteConf(n.c.SocketDir()))
	fmt.Fprintf(&b, "synchronous_standby_names = %s\n", quoteConf(sync))
	if follow != nil {
		fmt.Fprintf(&b, "primary_conninfo = %s\n", quoteConf(n.conninfo(follow)))
		if n.c.cfg.Slots {
			fmt.Fprintf(&b, "primary_slot_name = %s\n", quoteConf(n.slot()))
		}
	}
	return n.c.writeFile(filepath.Join(n.data, "node.conf"), b.String())
}

// conninfo is what n uses to stream from another node: over TCP, as standbys do.
func (n *Node) conninfo(from *Node) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=%s sslmode=disable",
		from.Port(), Superuser, quoteConninfo(n.c.Password), n.Name)
}

// slot is the name of the replication slot that n uses on whichever primary it follows.
func (n *Node) slot() string { return "pgweir_" + n.Name }

// setSync remembers the node's synchronous_standby_names for writeConf.
func (n *Node) setSync(names string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.sync = names
}

// setFollow remembers whom the node streams from for writeConf.
func (n *Node) setFollow(from *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.follow = from
}

// SetSync changes synchronous_standby_names of a running node.
func (n *Node) SetSync(ctx context.Context, names string) error {
	n.setSync(names)
	if err := n.writeConf(); err != nil {
		return err
	}
	return n.Reload(ctx)
}

// Promote makes a standby the primary and returns when it accepts writes. The other standbys
// go on looking for their old primary until Follow.
func (n *Node) Promote(ctx context.Context) error {
	if err := n.Exec(ctx, "postgres", "SELECT pg_catalog.pg_promote(true, 60)"); err != nil {
		return fmt.Errorf("promote %s: %w", n.Name, err)
	}
	return poll(ctx, func(ctx context.Context) (string, error) {
		rec, err := n.InRecovery(ctx)
		if err == nil && rec {
			return fmt.Sprintf("promote %s: it is still in recovery", n.Name), nil
		}
		return "", err
	})
}

// Follow makes a running standby stream from another node.
func (n *Node) Follow(ctx context.Context, primary *Node) error {
	if err := n.makeSlot(ctx, primary); err != nil {
		return err
	}
	n.setFollow(primary)
	if err := errors.Join(n.writeConf(), n.cleanAuto()); err != nil {
		return err
	}
	return n.Reload(ctx)
}

// makeSlot makes the slot that n will use on primary, where slots are in use.
func (n *Node) makeSlot(ctx context.Context, primary *Node) error {
	if !n.c.cfg.Slots {
		return nil
	}
	sql := fmt.Sprintf("SELECT pg_catalog.pg_create_physical_replication_slot('%s', true) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = '%[1]s')", n.slot())
	return primary.Exec(ctx, "postgres", sql)
}

// cleanAuto removes from postgresql.auto.conf what would win over node.conf.
func (n *Node) cleanAuto() error {
	path := filepath.Join(n.data, "postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the settings of ALTER SYSTEM: %w", err)
	}
	var keep strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "primary_conninfo") && !strings.HasPrefix(line, "primary_slot_name") {
			keep.WriteString(line)
		}
	}
	return n.c.writeFile(path, keep.String())
}

// Reclone throws the node's data away, copies the primary's and starts the node as its standby.
// A running node is killed first.
func (n *Node) Reclone(ctx context.Context, primary *Node) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := n.Kill9(); err != nil {
		return err
	}
	if err := os.RemoveAll(n.data); err != nil {
		return fmt.Errorf("remove the data of %s: %w", n.Name, err)
	}
	if err := n.clone(ctx, primary); err != nil {
		return err
	}
	return n.start(ctx)
}

// Rewind brings a former primary that is not running back as a standby of primary with
// pg_rewind. When it returns an error the data directory may be of no use any more: Reclone then.
func (n *Node) Rewind(ctx context.Context, primary *Node) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	switch {
	case n.Running():
		return fmt.Errorf("rewind %s: %w", n.Name, ErrRunning)
	case !n.c.bins.Has("pg_rewind"):
		return ErrNoRewind
	}
	// pg_rewind reads the source's timeline from its control file, where a new primary has it
	// only after its first checkpoint.
	if err := primary.Exec(ctx, "postgres", "CHECKPOINT"); err != nil {
		return err
	}
	source := fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", n.c.SocketDir(), primary.Port(), Superuser)
	if err := n.c.run(ctx, nil, "pg_rewind", "--target-pgdata", n.data, "--source-server", source, "--no-sync"); err != nil {
		return err
	}
	if err := n.asStandby(ctx, primary); err != nil {
		return err
	}
	return n.start(ctx)
}

// Rejoin brings a former primary that is not running back as a standby: by Rewind where that
// works, otherwise by Reclone. It returns which of the two it was.
func (n *Node) Rejoin(ctx context.Context, primary *Node) (how string, err error) {
	if err := n.Rewind(ctx, primary); err == nil {
		return "pg_rewind", nil
	}
	return "a fresh clone", n.Reclone(ctx, primary)
}

// asStandby turns a data directory, copied or rewound, into that of a standby of primary.
func (n *Node) asStandby(ctx context.Context, primary *Node) error {
	if err := n.makeSlot(ctx, primary); err != nil {
		return err
	}
	n.setFollow(primary)
	slots, err := filepath.Glob(filepath.Join(n.data, "pg_replslot", "*"))
	if err != nil {
		return fmt.Errorf("list the slots of %s: %w", n.Name, err)
	}
	for _, s := range slots {
		if err := os.RemoveAll(s); err != nil {
			return fmt.Errorf("remove a slot of %s: %w", n.Name, err)
		}
	}
	return errors.Join(n.writeConf(), n.cleanAuto(), n.c.writeFile(filepath.Join(n.data, "standby.signal"), ""))
}

// clone copies the primary's data into n's empty place.
func (n *Node) clone(ctx context.Context, primary *Node) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", n.Name, err)
	}
	if err := n.c.own(n.dir); err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.sync = primary.syncNames()
	n.mu.Unlock()
	var err error
	if n.c.bins.Has("pg_basebackup") {
		err = n.c.run(ctx, nil, "pg_basebackup", "-D", n.data, "-h", n.c.SocketDir(), "-p", fmt.Sprint(primary.Port()),
			"-U", Superuser, "-X", "stream", "-c", "fast", "--no-sync")
	} else {
		err = n.copyFrom(ctx, primary)
	}
	if err != nil {
		return fmt.Errorf("clone %s from %s: %w", n.Name, primary.Name, err)
	}
	return n.asStandby(ctx, primary)
}

// syncNames is the node's synchronous_standby_names.
func (n *Node) syncNames() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.sync
}

// copyFrom is pg_basebackup by hand (PostgreSQL documentation, "Making a Non-Exclusive Low-Level
// Backup"), for binaries that come without it: the files are copied while the primary is in backup
// mode, and the standby streams the WAL that makes them consistent.
func (n *Node) copyFrom(ctx context.Context, primary *Node) error {
	conn, err := primary.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start, stop := "SELECT pg_backup_start('pgweir', true)", "SELECT labelfile, spcmapfile FROM pg_backup_stop(false)"
	if n.c.bins.Version < 15 {
		start, stop = "SELECT pg_start_backup('pgweir', true, false)", "SELECT labelfile, spcmapfile FROM pg_stop_backup(false, false)"
	}
	if _, err := query(ctx, conn, start); err != nil {
		return err
	}
	if err := n.c.copyTree(primary.data, n.data); err != nil {
		return err
	}
	rows, err := query(ctx, conn, stop)
	if err != nil {
		return err
	}
	if strings.TrimSpace(rows[0][1]) != "" {
		return errors.New("the primary has tablespaces, which a copy beside it cannot share")
	}
	return n.c.writeFile(filepath.Join(n.data, "backup_label"), rows[0][0])
}

// copyTree copies a live data directory as a base backup does: what the server would make anew
// or what belongs to the running one stays out, and files that vanish meanwhile are passed over.
func (c *Cluster) copyTree(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		name := d.Name()
		switch {
		case d.IsDir():
			if strings.HasPrefix(name, "pgsql_tmp") {
				return filepath.SkipDir
			}
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
			return c.own(target)
		case emptied(rel), strings.HasPrefix(name, "pgsql_tmp"), name == "postmaster.pid", name == "postmaster.opts",
			name == "pg_internal.init", name == "standby.signal", name == "backup_label":
			return nil
		default:
			return c.copyFile(path, target)
		}
	})
	if err != nil {
		return fmt.Errorf("copy the data directory: %w", err)
	}
	return nil
}

// emptied says whether a file lies in a directory whose contents a base backup leaves out.
func emptied(rel string) bool {
	top, _, below := strings.Cut(rel, string(filepath.Separator))
	if !below {
		return false
	}
	switch top {
	case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans":
		return true
	}
	return false
}

// copyFile copies one file; one that is gone is not an error.
func (c *Cluster) copyFile(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), c.own(to))
}
