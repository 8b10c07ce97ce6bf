package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/localpg"
)

// demoClient is one client connection through the proxy, which the whole tour keeps.
type demoClient struct{ conn *pgconn.PgConn }

// connect logs in through the proxy as any application would.
func (d *demo) connect(ctx context.Context) (*demoClient, error) {
	cfg, err := pgconn.ParseConfig(d.dsn() + "?sslmode=disable&target_session_attrs=any&application_name=pgweir-demo")
	if err != nil {
		return nil, fmt.Errorf("read the demo's own DSN: %w", err)
	}
	cfg.Fallbacks = nil
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err == nil {
			return &demoClient{conn}, nil
		}
		// 57P03 is "not yet": a busy machine may need a moment for the first login.
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P03" || time.Since(began) > 10*time.Second {
			return nil, fmt.Errorf("connect through the proxy: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// close ends the connection.
func (c *demoClient) close(ctx context.Context) {
	_ = c.conn.Close(context.WithoutCancel(ctx)) // it is only said good-bye
}

// ask runs one statement and returns the first row of its answer as text.
func (c *demoClient) ask(ctx context.Context, sql string) ([]string, error) {
	results, err := c.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", sql, err)
	}
	var row []string
	if n := len(results); n > 0 && len(results[n-1].Rows) > 0 {
		for _, v := range results[n-1].Rows[0] {
			row = append(row, string(v))
		}
	}
	return row, nil
}

// answer is what one statement of the tour gave.
type answer struct {
	port  int   // of the node that answered, by its own word
	count int64 // rows in the table
}

// answer runs a statement that returns node_port() and a count.
func (c *demoClient) answer(ctx context.Context, sql string) (answer, error) {
	row, err := c.ask(ctx, sql)
	if err != nil {
		return answer{}, err
	}
	if len(row) != 2 {
		return answer{}, fmt.Errorf("run %q: a row of %d columns came, not of 2", sql, len(row))
	}
	port, err := strconv.Atoi(row[0])
	if err != nil {
		return answer{}, fmt.Errorf("run %q: %w", sql, err)
	}
	n, err := strconv.ParseInt(row[1], 10, 64)
	return answer{port, n}, err
}

// The statements of the tour. node_port() is asked of the node that runs the statement.
const (
	demoCreate = "CREATE TABLE IF NOT EXISTS sample (id SERIAL PRIMARY KEY, name VARCHAR(255))"
	demoInsert = "INSERT INTO sample (name) VALUES ('demo') RETURNING node_port(), id"
	demoSelect = "SELECT node_port(), count(*) FROM sample"
)

// show writes once and reads a few times, and prints who answered.
func (d *demo) show(ctx context.Context, c *demoClient) error {
	w, err := c.answer(ctx, demoInsert)
	if err != nil {
		return err
	}
	d.say("INSERT …                    answered by %s", d.name(w.port))
	for range 3 {
		r, err := c.answer(ctx, demoSelect)
		if err != nil {
			return err
		}
		d.say("SELECT … → %-4d             answered by %s", r.count, d.name(r.port))
	}
	return nil
}

// tour is `pgweir demo --check`: each step is printed with the node that answered it, and the
// first that is not as promised ends it.
func (d *demo) tour(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the tour took longer than two minutes"))
	defer cancel()
	if err := d.tourCreate(ctx); err != nil {
		return err
	}
	c, err := d.connect(ctx)
	if err != nil {
		return d.failed("connect", err)
	}
	defer c.close(ctx)
	d.say("✔ connected to %s; the tour keeps this one connection", d.listen)
	old := d.cluster.Nodes[0]
	rows, err := d.tourBefore(ctx, c, old)
	if err != nil {
		return err
	}
	if err := d.tourFailover(ctx, c, old, rows); err != nil {
		return err
	}
	d.say("✔ the tour is over: every step was as promised")
	return nil
}

// failed prints a step that went wrong.
func (d *demo) failed(step string, err error) error {
	d.say("✖ %s: %v", step, err)
	return fmt.Errorf("demo --check: %s: %w", step, err)
}

// tourCreate makes the table, over a connection of its own, and waits until reads of it spread: the
// proxy reads the catalog again after DDL.
func (d *demo) tourCreate(ctx context.Context) error {
	c, err := d.connect(ctx)
	if err != nil {
		return d.failed("connect", err)
	}
	_, err = c.ask(ctx, demoCreate)
	c.close(ctx)
	if err != nil {
		return d.failed("create a table", err)
	}
	d.say("✔ CREATE TABLE sample")
	return d.readFrom(ctx, d.cluster.Nodes[1], 0)
}

// tourBefore is the part of the tour with the first primary; it returns how many rows there are.
func (d *demo) tourBefore(ctx context.Context, c *demoClient, primary *localpg.Node) (int64, error) {
	var rows int64
	for range 3 {
		a, err := c.answer(ctx, demoInsert)
		if err == nil && a.port != primary.Port() {
			err = fmt.Errorf("it was answered by %s, which is not the primary", d.name(a.port))
		}
		if err != nil {
			return 0, d.failed("insert a row", err)
		}
		rows++
		d.say("✔ INSERT → row %d             answered by %s, the primary", a.count, d.name(a.port))
		a, err = c.answer(ctx, demoSelect)
		if err == nil && a.count != rows {
			err = fmt.Errorf("%s shows %d rows of %d", d.name(a.port), a.count, rows)
		}
		if err != nil {
			return 0, d.failed("read what was just written", err)
		}
		d.say("✔ SELECT count(*) → %d        answered by %s", a.count, d.name(a.port))
	}
	for _, n := range d.cluster.Nodes {
		if n != primary {
			if err := d.readFrom(ctx, n, rows); err != nil {
				return 0, err
			}
		}
	}
	return rows, nil
}

// readFrom reads, each time over a new connection, until the node has answered; every answer on
// the way must be right.
func (d *demo) readFrom(ctx context.Context, n *localpg.Node, rows int64) error {
	step := fmt.Sprintf("read from %s", n.Name)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var why string
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		a, reason, err := d.readOnce(ctx)
		if err == nil && a.count != rows {
			err = fmt.Errorf("%s shows %d rows of %d", d.name(a.port), a.count, rows)
		}
		if err != nil {
			return d.failed(step, err)
		}
		if a.port == n.Port() {
			d.say("✔ SELECT count(*) → %d        answered by %s, a standby", a.count, d.name(a.port))
			return nil
		}
		why = reason
		select {
		case <-tick.C:
		case <-ctx.Done():
			return d.failed(step, context.Cause(ctx))
		}
	}
	return d.failed(step, fmt.Errorf("it answered nothing for 30 s; the last read went to: %s", why))
}

// readOnce reads over a new connection and asks why the read went where it went.
func (d *demo) readOnce(ctx context.Context) (answer, string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return answer{}, "", err
	}
	defer c.close(ctx)
	a, err := c.answer(ctx, demoSelect)
	if err != nil {
		return answer{}, "", err
	}
	why, err := c.ask(ctx, "SHOW pgweir.last_route")
	return a, strings.Join(why, " "), err
}

// tourFailover kills the primary and goes on writing and reading over the same connection.
func (d *demo) tourFailover(ctx context.Context, c *demoClient, old *localpg.Node, rows int64) error {
	if err := old.Kill9(); err != nil {
		return d.failed("kill the primary", err)
	}
	died := time.Now()
	d.say("✔ kill -9 of %s, the primary; the next statement waits for a new one", d.name(old.Port()))
	a, err := c.answer(ctx, demoInsert)
	if err == nil && a.port == old.Port() {
		err = errors.New("the dead node answered")
	}
	if err == nil {
		err = d.isPrimary(ctx, a.port)
	}
	if err != nil {
		return d.failed("write after the primary's death", err)
	}
	rows++
	d.say("✔ INSERT → row %d             answered by %s, promoted; the client waited %d ms", a.count, d.name(a.port), time.Since(died).Milliseconds())
	promoted := a.port
	a, err = c.answer(ctx, demoSelect)
	if err == nil && a.count != rows {
		err = fmt.Errorf("%s shows %d rows of %d", d.name(a.port), a.count, rows)
	}
	if err != nil {
		return d.failed("read what was written before and after", err)
	}
	d.say("✔ SELECT count(*) → %d        answered by %s: nothing acknowledged was lost", a.count, d.name(a.port))
	for _, n := range d.cluster.Nodes {
		if n.Port() == promoted || n == old {
			continue
		}
		if err := d.readFrom(ctx, n, rows); err != nil {
			return err
		}
	}
	if err := d.readFrom(ctx, old, rows); err != nil {
		return err
	}
	d.say("✔ %s, the former primary, is back as a standby and answers reads", d.name(old.Port()))
	return nil
}

// isPrimary asks the node itself, past the proxy.
func (d *demo) isPrimary(ctx context.Context, port int) error {
	n := d.cluster.ByPort(port)
	if n == nil {
		return fmt.Errorf("port %d is none of the nodes", port)
	}
	rec, err := n.InRecovery(ctx)
	if err == nil && rec {
		err = fmt.Errorf("%s says that it is a standby", n.Name)
	}
	return err
}
