package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pgxConnect logs in with pgx until the test ends.
func pgxConnect(t testing.TB, dsn string, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	must(t, err)
	for _, f := range change {
		f(cfg)
	}
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// goDSN is a connection string for the drivers of Go.
func (at place) goDSN() string {
	return fmt.Sprintf("host=127.0.0.1 port=%s user=%s password='%s' dbname=%s sslmode=disable", port(at.addr), appUser, appPassword, appDatabase)
}

// wantState fails the test unless the error is the server's with that SQLSTATE.
func wantState(t testing.TB, err error, state string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != state {
		t.Errorf("wanted SQLSTATE %s, got %v", state, err)
	}
}

// TestPgx is what a program that uses pgx relies on.
func TestPgx(t *testing.T) {
	eachPlace(t, func(t *testing.T, at place) {
		c := pgxConnect(t, at.goDSN())
		_, err := c.Exec(t.Context(), "DROP TABLE IF EXISTS pgx_t; CREATE TABLE pgx_t (id int PRIMARY KEY, v text)")
		must(t, err)
		t.Run("prepared", func(t *testing.T) { pgxPrepared(t, at) })
		t.Run("batch", func(t *testing.T) { pgxBatch(t, c) })
		t.Run("pipeline", func(t *testing.T) { pgxPipeline(t, c) })
		t.Run("copy", func(t *testing.T) { pgxCopy(t, c) })
		t.Run("listen", func(t *testing.T) { pgxListen(t, at, c) })
		t.Run("cancel", func(t *testing.T) { pgxCancel(t, c) })
		t.Run("large", func(t *testing.T) { pgxLarge(t, c) })
		t.Run("recovery", func(t *testing.T) { pgxRecovery(t, c) })
		t.Run("hosts", func(t *testing.T) { pgxHosts(t, at) })
	})
}

// pgxPrepared uses every way in which pgx runs a statement, with more statements than it caches.
func pgxPrepared(t *testing.T, at place) {
	ctx := t.Context()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		c := pgxConnect(t, at.goDSN(), func(cfg *pgx.ConnConfig) {
			cfg.DefaultQueryExecMode = mode
			cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 8, 8
		})
		for i := range 30 {
			var n int
			must(t, c.QueryRow(ctx, fmt.Sprintf("SELECT %d + $1::int", i%12), i).Scan(&n))
			if n != i%12+i {
				t.Fatalf("mode %v: %d", mode, n)
			}
			_, err := c.Exec(ctx, "INSERT INTO pgx_t VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v", i, fmt.Sprintf("%v %d", mode, i))
			must(t, err)
			var v string
			must(t, c.QueryRow(ctx, "SELECT v FROM pgx_t WHERE id = $1", i).Scan(&v))
			if v != fmt.Sprintf("%v %d", mode, i) {
				t.Fatalf("mode %v: read %q after the write of row %d", mode, v, i)
			}
		}
	}
}

// pgxBatch sends many statements at once.
func pgxBatch(t *testing.T, c *pgx.Conn) {
	ctx := t.Context()
	b := &pgx.Batch{}
	for i := range 200 {
		b.Queue("INSERT INTO pgx_t VALUES ($1, 'batch')", 1000+i)
	}
	b.Queue("SELECT count(*) FROM pgx_t WHERE v = 'batch'").QueryRow(func(r pgx.Row) error {
		var n int
		if err := r.Scan(&n); err != nil {
			return err
		}
		if n != 200 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	must(t, c.SendBatch(ctx, b).Close())
	bad := &pgx.Batch{}
	bad.Queue("INSERT INTO pgx_t VALUES (1500, 'bad')")
	bad.Queue("INSERT INTO pgx_t VALUES (1000, 'bad')")
	bad.Queue("INSERT INTO pgx_t VALUES (1501, 'bad')")
	wantState(t, c.SendBatch(ctx, bad).Close(), "23505")
	var n int
	must(t, c.QueryRow(ctx, "SELECT count(*) FROM pgx_t WHERE v = 'bad'").Scan(&n))
	if n != 0 {
		t.Errorf("%d rows of a failed batch are there", n)
	}
}

// pgxPipeline has several Syncs under way.
func pgxPipeline(t *testing.T, c *pgx.Conn) {
	ctx := t.Context()
	p := c.PgConn().StartPipeline(ctx)
	for i := range 50 {
		sql := fmt.Sprintf("SELECT %d", i)
		if i%10 == 5 {
			sql = "SELECT 1/0"
		}
		p.SendQueryParams(sql, nil, nil, nil, nil)
		must(t, p.Sync())
	}
	var rows, failures int
	for syncs := 0; syncs < 50; {
		r, err := p.GetResults()
		if err != nil {
			wantState(t, err, "22012")
			failures++
			continue
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			res := r.Read()
			if res.Err != nil {
				wantState(t, res.Err, "22012")
				failures++
				continue
			}
			rows += len(res.Rows)
		case *pgconn.PipelineSync:
			syncs++
		}
	}
	must(t, p.Close())
	if rows != 45 || failures != 5 {
		t.Errorf("%d rows and %d failures", rows, failures)
	}
}

// pgxCopy copies both ways.
func pgxCopy(t *testing.T, c *pgx.Conn) {
	ctx := t.Context()
	n, err := c.CopyFrom(ctx, pgx.Identifier{"pgx_t"}, []string{"id", "v"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) { return []any{10000 + i, "copied"}, nil }))
	must(t, err)
	if n != 5000 {
		t.Errorf("copied %d", n)
	}
	var out strings.Builder
	tag, err := c.PgConn().CopyTo(ctx, &out, "COPY (SELECT id FROM pgx_t WHERE v = 'copied' ORDER BY id) TO STDOUT")
	must(t, err)
	if tag.RowsAffected() != 5000 || !strings.HasPrefix(out.String(), "10000\n10001\n") {
		t.Errorf("copied out %d: %.20q", tag.RowsAffected(), out.String())
	}
	_, err = c.PgConn().CopyFrom(ctx, strings.NewReader("x\ty\n"), "COPY pgx_t FROM STDIN")
	wantState(t, err, "22P02")
	_, err = c.CopyFrom(ctx, pgx.Identifier{"pgx_t"}, []string{"id", "v"}, pgx.CopyFromSlice(10, func(i int) ([]any, error) {
		if i == 5 {
			return nil, errors.New("changed my mind")
		}
		return []any{20000 + i, "never"}, nil
	}))
	if err == nil {
		t.Error("a copy that its source ended was taken")
	}
}

// pgxListen waits for notifications.
func pgxListen(t *testing.T, at place, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := pgxConnect(t, at.goDSN())
	_, err := l.Exec(ctx, "LISTEN pgx_ch")
	must(t, err)
	for _, want := range []string{"one", "two"} {
		_, err = c.Exec(ctx, "SELECT pg_notify('pgx_ch', $1)", want)
		must(t, err)
		n, err := l.WaitForNotification(ctx)
		must(t, err)
		if n.Payload != want {
			t.Errorf("heard %q", n.Payload)
		}
		var one int
		must(t, l.QueryRow(ctx, "SELECT 1").Scan(&one))
	}
}

// pgxCancel cancels a statement by its context's end, with a CancelRequest.
func pgxCancel(t *testing.T, c *pgx.Conn) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				failed <- nil
				return
			default:
			}
			if err := c.PgConn().CancelRequest(ctx); err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
		}
	}()
	_, err := c.Exec(t.Context(), "SELECT pg_sleep(60)")
	wantState(t, err, "57014")
	cancel()
	must(t, <-failed)
	for range 3 { // a last request may still have been under way
		if _, err = c.Exec(t.Context(), "SELECT 1"); err == nil {
			return
		}
		wantState(t, err, "57014")
	}
	t.Error("the connection does not come back")
}

// pgxLarge moves large rows and many rows.
func pgxLarge(t *testing.T, c *pgx.Conn) {
	ctx := t.Context()
	text := strings.Repeat("0123456789abcdef", 1<<20)
	_, err := c.Exec(ctx, "INSERT INTO pgx_t VALUES (90000, $1)", text)
	must(t, err)
	var got string
	must(t, c.QueryRow(ctx, "SELECT v FROM pgx_t WHERE id = 90000").Scan(&got))
	if got != text {
		t.Errorf("%d bytes came back", len(got))
	}
	rows, err := c.Query(ctx, "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	must(t, err)
	n := 0
	for rows.Next() {
		n++
	}
	must(t, rows.Err())
	if n != 20000 {
		t.Errorf("%d rows", n)
	}
}

// pgxRecovery goes on after errors.
func pgxRecovery(t *testing.T, c *pgx.Conn) {
	ctx := t.Context()
	_, err := c.Exec(ctx, "SELECT 1/0")
	wantState(t, err, "22012")
	_, err = c.Exec(ctx, "SELECT * FROM nope")
	wantState(t, err, "42P01")
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO pgx_t VALUES (91000, 'tx')"); err != nil {
			return err
		}
		inner := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO pgx_t VALUES (91000, 'again')")
			return err
		})
		wantState(t, inner, "23505")
		_, err := tx.Exec(ctx, "INSERT INTO pgx_t VALUES (91001, 'tx')")
		return err
	})
	must(t, err)
	var n int
	must(t, c.QueryRow(ctx, "SELECT count(*) FROM pgx_t WHERE v = 'tx'").Scan(&n))
	if n != 2 {
		t.Errorf("%d rows", n)
	}
	_, err = c.Exec(ctx, "ALTER TABLE pgx_t ADD COLUMN IF NOT EXISTS more int")
	must(t, err)
	err = pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM pgx_t WHERE v = 'tx'").Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM pgx_t")
		return err
	})
	wantState(t, err, "25006")
}

// pgxHosts chooses among several hosts.
func pgxHosts(t *testing.T, at place) {
	primary, standby := port(at.addr), port(at.standby)
	for _, k := range [][3]string{
		{deadPort(t) + "," + primary, "any", "off"},
		{standby + "," + primary, "read-write", "off"},
		{standby + "," + primary, "primary", "off"},
		{primary + "," + standby, "standby", "on"},
		{primary + "," + standby, "read-only", "on"},
		{primary + "," + standby, "prefer-standby", "on"},
	} {
		dsn := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%s user=%s password='%s' dbname=%s sslmode=disable target_session_attrs=%s", k[0], appUser, appPassword, appDatabase, k[1])
		c := pgxConnect(t, dsn)
		var v string
		must(t, c.QueryRow(t.Context(), "SHOW transaction_read_only").Scan(&v))
		if v != k[2] {
			t.Errorf("%s of %s: transaction_read_only is %s", k[1], k[0], v)
		}
	}
}
