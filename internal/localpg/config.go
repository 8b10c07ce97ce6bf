package localpg

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
)

// Config says what kind of cluster New makes. The zero value is a single primary of the newest
// version on this machine.
type Config struct {
	Bins     Bins   // the zero value: Find(0)
	Dir      string // where everything is kept; "" makes a temporary one. Close removes it either way
	Standbys int    // how many streaming standbys beside the primary

	// Settings are lines of postgresql.conf for every node, over the defaults of this package
	// (see defaultSettings). A value is written as a quoted string.
	Settings map[string]string
	// Durable keeps fsync on. Without it a crash of the machine corrupts the cluster, but no
	// signal to its processes does.
	Durable bool
	// Slots makes the standbys stream through physical replication slots; without it the
	// primary keeps wal_keep_size.
	Slots bool
	// HotStandbyFeedback turns hot_standby_feedback on at every node.
	HotStandbyFeedback bool
	// SyncStandbys is synchronous_standby_names, set once the standbys stream; a standby's name
	// there is its Node.Name. On a standby it starts to count when it is promoted.
	SyncStandbys string

	// Auth is the pg_hba method for connections over TCP: "scram-sha-256" (the default), "md5",
	// "password" or "trust". The Unix socket, in a directory that only the server's user can
	// enter, always trusts.
	Auth string
	// HBA are lines put before this package's own in pg_hba.conf.
	HBA []string
	// Password of the superuser "postgres"; "" makes a random one.
	Password string

	// Files are written into every data directory before the first start, readable by the
	// server's user only, for example certificates that Settings name.
	Files map[string][]byte
	// RunAs is the user to become when this process is root; "" is "postgres". Otherwise unused.
	RunAs string
}

// Superuser is the role that every cluster is made with; its password is Cluster.Password.
const Superuser = "postgres"

// Validate reports every mistake in c that can be seen without starting anything.
func (c Config) Validate() error {
	var errs []error
	if c.Standbys < 0 || c.Standbys > 9 {
		errs = append(errs, fmt.Errorf("standbys: %d is not between 0 and 9", c.Standbys))
	}
	switch c.Auth {
	case "", "scram-sha-256", "md5", "password", "trust":
	default:
		errs = append(errs, fmt.Errorf("auth: %q is not scram-sha-256, md5, password or trust", c.Auth))
	}
	for _, name := range []string{"port", "listen_addresses", "unix_socket_directories", "primary_conninfo", "primary_slot_name", "cluster_name", "synchronous_standby_names", "hot_standby_feedback", "fsync"} {
		if _, ok := c.Settings[name]; ok {
			errs = append(errs, fmt.Errorf("settings: %s is set by the cluster itself", name))
		}
	}
	if c.SyncStandbys != "" && c.Standbys == 0 {
		errs = append(errs, errors.New("sync standbys: there are no standbys, every commit would wait"))
	}
	return errors.Join(errs...)
}

// defaultSettings suit a small cluster that is killed often on a machine that does other things:
// little memory, quick reconnection of standbys, a hung primary noticed within wal_receiver_timeout.
func defaultSettings() map[string]string {
	return map[string]string{
		"shared_buffers":               "32MB",
		"max_connections":              "100",
		"max_wal_size":                 "256MB",
		"min_wal_size":                 "80MB",
		"wal_level":                    "replica",
		"wal_log_hints":                "on",
		"wal_keep_size":                "256MB",
		"max_wal_senders":              "12",
		"max_replication_slots":        "12",
		"hot_standby":                  "on",
		"wal_receiver_timeout":         "4s",
		"wal_sender_timeout":           "4s",
		"wal_receiver_status_interval": "1s",
		"wal_retrieve_retry_interval":  "100ms",
		"max_prepared_transactions":    "10",
		"timezone":                     "UTC",
		"log_timezone":                 "UTC",
		"log_line_prefix":              "%m [%p] %q%a %u@%d ",
		"lc_messages":                  "C",
		"autovacuum_max_workers":       "1",
		"logging_collector":            "off",
	}
}

// settings is the text for the end of postgresql.conf.
func (c Config) settings() string {
	set := defaultSettings()
	maps.Copy(set, c.Settings)
	set["listen_addresses"] = "127.0.0.1"
	set["fsync"] = onOff(c.Durable)
	set["hot_standby_feedback"] = onOff(c.HotStandbyFeedback)
	var b strings.Builder
	b.WriteString("\n# written by pgweir\n")
	for _, k := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "%s = %s\n", k, quoteConf(set[k]))
	}
	b.WriteString("include = 'node.conf'\n")
	return b.String()
}

// hba is the text of pg_hba.conf.
func (c Config) hba() string {
	auth := c.Auth
	if auth == "" {
		auth = "scram-sha-256"
	}
	lines := slices.Clone(c.HBA)
	lines = append(lines,
		"local all all trust",
		"local replication all trust",
		"host all all 127.0.0.1/32 "+auth,
		"host replication all 127.0.0.1/32 "+auth,
	)
	return strings.Join(lines, "\n") + "\n"
}

// passwordEncryption is the --auth-host that makes initdb store the password the right way.
func (c Config) passwordEncryption() string {
	if c.Auth == "md5" {
		return "md5"
	}
	return "scram-sha-256"
}

// account is the user that the servers run as when that is not our own.
type account struct {
	uid, gid int
	other    bool // set when the programs must change to it
}

// account finds out whom to run as.
func (c Config) account() (account, error) {
	if os.Getuid() != 0 {
		return account{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	name := c.RunAs
	if name == "" {
		name = "postgres"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("look up the user to run PostgreSQL as (it refuses to run as root): %w", err)
	}
	var a account
	if _, err := fmt.Sscan(u.Uid, &a.uid); err != nil {
		return account{}, fmt.Errorf("read the id of user %s: %w", name, err)
	}
	if _, err := fmt.Sscan(u.Gid, &a.gid); err != nil {
		return account{}, fmt.Errorf("read the group of user %s: %w", name, err)
	}
	if a.uid == 0 {
		return account{}, fmt.Errorf("run as %s: PostgreSQL refuses to run as root", name)
	}
	a.other = true
	return a, nil
}

// onOff spells a switch as postgresql.conf does.
func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

// quoteConf quotes a value for postgresql.conf.
func quoteConf(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quoteConninfo quotes a value for a libpq connection string.
func quoteConninfo(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
