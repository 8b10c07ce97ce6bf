package localpg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// LSN is a position in the write-ahead log.
type LSN uint64

// ParseLSN reads the form "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("read %q as a WAL position: it is not of the form 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// String is PostgreSQL's own form.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Connect opens a connection over the Unix socket as Superuser, past every password. The caller
// closes it.
func (n *Node) Connect(ctx context.Context, db string) (*pgconn.PgConn, error) {
	dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable target_session_attrs=any application_name=localpg",
		quoteConninfo(n.c.SocketDir()), n.Port(), Superuser, quoteConninfo(db))
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("describe the connection to %s: %w", n.Name, err)
	}
	cfg.Fallbacks = nil
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", n.Name, err)
	}
	return conn, nil
}

// Query runs SQL on this node over a connection of its own, as Superuser, and returns the rows of
// its last statement as text; a NULL is "".
func (n *Node) Query(ctx context.Context, db, sql string) ([][]string, error) {
	conn, err := n.Connect(ctx, db)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := query(ctx, conn, sql)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", n.Name, err)
	}
	return rows, nil
}

// Exec is Query for SQL whose rows do not matter.
func (n *Node) Exec(ctx context.Context, db, sql string) error {
	_, err := n.Query(ctx, db, sql)
	return err
}

// Value is Query for one value.
func (n *Node) Value(ctx context.Context, db, sql string) (string, error) {
	rows, err := n.Query(ctx, db, sql)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return "", fmt.Errorf("ask %s: %d rows came for one value", n.Name, len(rows))
	}
	return rows[0][0], nil
}

// query runs SQL in the simple protocol and returns the last statement's rows.
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, nil
	}
	var rows [][]string
	for _, r := range results[len(results)-1].Rows {
		row := make([]string, len(r))
		for i, v := range r {
			row[i] = string(v)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// InRecovery says whether the node is a standby.
func (n *Node) InRecovery(ctx context.Context) (bool, error) {
	v, err := n.Value(ctx, "postgres", "SELECT pg_is_in_recovery()")
	return v == "t", err
}

// Written is the position up to which a primary has written WAL.
func (n *Node) Written(ctx context.Context) (LSN, error) {
	return n.lsn(ctx, "SELECT pg_current_wal_lsn()")
}

// Received is the position up to which a standby has WAL on its disk, received or replayed.
func (n *Node) Received(ctx context.Context) (LSN, error) {
	return n.lsn(ctx, "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())")
}

// Replayed is the position up to which a standby has replayed.
func (n *Node) Replayed(ctx context.Context) (LSN, error) {
	return n.lsn(ctx, "SELECT pg_last_wal_replay_lsn()")
}

// lsn asks for one position.
func (n *Node) lsn(ctx context.Context, sql string) (LSN, error) {
	v, err := n.Value(ctx, "postgres", sql)
	if err != nil {
		return 0, err
	}
	return ParseLSN(v)
}

// WaitReplayed waits until the standby has replayed up to lsn.
func (n *Node) WaitReplayed(ctx context.Context, lsn LSN) error {
	return poll(ctx, func(ctx context.Context) (string, error) {
		at, err := n.Replayed(ctx)
		if err == nil && at < lsn {
			return fmt.Sprintf("wait for %s to replay up to %s: it is at %s", n.Name, lsn, at), nil
		}
		return "", err
	})
}

// PauseReplay makes a standby keep what it receives without showing it, and returns when replay
// has stopped.
func (n *Node) PauseReplay(ctx context.Context) error {
	if err := n.Exec(ctx, "postgres", "SELECT pg_wal_replay_pause()"); err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) (string, error) {
		v, err := n.Value(ctx, "postgres", "SELECT pg_get_wal_replay_pause_state()")
		if err == nil && v != "paused" {
			return fmt.Sprintf("wait for %s to pause its replay: %s", n.Name, v), nil
		}
		return "", err
	})
}

// ResumeReplay undoes PauseReplay.
func (n *Node) ResumeReplay(ctx context.Context) error {
	return n.Exec(ctx, "postgres", "SELECT pg_wal_replay_resume()")
}

// Reload makes the server read its configuration files again; its processes do so a moment later.
// Mistakes in the files are an error.
func (n *Node) Reload(ctx context.Context) error {
	bad, err := n.Query(ctx, "postgres", "SELECT pg_reload_conf(); SELECT sourcefile || ':' || sourceline || ': ' || error FROM pg_file_settings WHERE error IS NOT NULL AND error <> 'setting could not be applied'")
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return errors.New("reload " + n.Name + ": " + bad[0][0])
	}
	return nil
}
