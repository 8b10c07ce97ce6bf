package health

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// pgLink is a probe connection to PostgreSQL.
type pgLink struct {
	dialer   *pgDialer
	node     NodeConfig
	conn     *pgconn.PgConn
	can      capability
	columns  []string // of the probe's answer
	last     *observation
	page     uint64
	segment  uint64
	roles    bool // pg_db_role_setting is small enough to be read with every sample
	async    bool // what the last probe found of synchronous_commit
	prepared map[string]bool
}

// The names of the statements that a link prepares.
const (
	stmtProbe   = "pgweir_probe"
	stmtPrimary = "pgweir_sample_primary"
	stmtRoles   = "pgweir_sample_primary_roles"
	stmtStandby = "pgweir_sample_standby"
	stmtBare    = "pgweir_sample_bare"
)

// manyRoles is how many entries pg_db_role_setting may have to be read with every sample.
const manyRoles = 64

// column is one thing a probe asks.
type column struct {
	name string
	need capability // 0: every server answers it
	expr string
}

// asyncExpr is whether any role or database has synchronous_commit off, or a setting that applies
// to the monitor itself hides the server's own value from it.
const asyncExpr = `EXISTS (SELECT FROM pg_catalog.pg_db_role_setting
 WHERE setconfig::text ~* 'synchronous_commit='
 AND (setconfig::text ~* 'synchronous_commit=(off|false|no|0)'
  OR setrole IN (0, current_user::regrole::oid)
  AND setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))))`

// settingsExpr changes with what connections start with: ALTER ROLE and ALTER DATABASE … SET, and a reload of the
// configuration.
const settingsExpr = `(SELECT concat_ws(' ', count(*), max(xmin::text::bigint), extract(epoch FROM pg_conf_load_time()))
 FROM pg_catalog.pg_db_role_setting)`

// probeColumns are all that a probe asks. Functions that fail in recovery, or outside of it, are
// asked only where they work.
func probeColumns() []column {
	return []column{
		{"recovery", 0, `pg_is_in_recovery()`},
		{"readonly", 0, `current_setting('transaction_read_only')`},
		{"version", 0, `current_setting('server_version_num')`},
		{"start", 0, `(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`},
		{"server", 0, `host(inet_server_addr())`},
		{"system", canIdentity, `(SELECT system_identifier FROM pg_control_system())`},
		{"flush", canPositions, `CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END`},
		{"received", canPositions, `pg_last_wal_receive_lsn()`},
		{"replayed", canPositions, `pg_last_wal_replay_lsn()`},
		{"paused", canPositions, `CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END`},
		{"page", canPositions, `current_setting('wal_block_size')`},
		{"segment", canPositions, `pg_size_bytes(current_setting('wal_segment_size'))`},
		{"timeline", canTimeline, `CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END`},
		{"checkpoint", canControl, `(SELECT timeline_id FROM pg_control_checkpoint())`},
		{"previous", canControl, `(SELECT prev_timeline_id FROM pg_control_checkpoint())`},
		{"minimum", canControl, `(SELECT min_recovery_end_timeline FROM pg_control_recovery())`},
		{"receiving", canReceiver, `w.pid IS NOT NULL`},
		{"follows", canReceiver, `w.received_tli`},
		{"sender", canReceiver, `w.sender_host`},
		{"senderport", canReceiver, `w.sender_port`},
		{"latestend", canReceiver, `w.latest_end_lsn`},
		{"lastmsg", canReceiver, `(extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time) * 1000000)::bigint`},
		{"async", canSettings, asyncExpr},
		{"settings", canSettings, settingsExpr},
		{"roles", canSettings, `(SELECT count(*) FROM pg_catalog.pg_db_role_setting)`},
		{"commit", 0, `current_setting('synchronous_commit', true)`},
	}
}

// probeSQL is the statement that asks for everything in can, and its columns' names.
func probeSQL(can capability) (string, []string) {
	var exprs, names []string
	for _, c := range probeColumns() {
		if c.need&can == c.need {
			exprs = append(exprs, c.expr)
			names = append(names, c.name)
		}
	}
	from := ""
	if can&canReceiver != 0 {
		from = " FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_stat_wal_receiver AS w ON true"
	}
	return "SELECT " + strings.Join(exprs, ", ") + from, names
}

// sampleSQL is the statement of each cheap question.
func sampleSQL(name string, can capability) string {
	snapshot := "NULL, NULL, NULL"
	if can&canSnapshot != 0 {
		snapshot = "pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot()), age('3'::xid)"
	}
	switch name {
	case stmtPrimary:
		return "SELECT pg_is_in_recovery(), " + snapshot +
			", pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), current_setting('synchronous_commit', true)"
	case stmtRoles:
		return sampleSQL(stmtPrimary, can) + ", " + asyncExpr
	case stmtStandby:
		follows := "NULL"
		if can&canReceiver != 0 {
			follows = "(SELECT received_tli FROM pg_stat_get_wal_receiver())"
		}
		return "SELECT pg_is_in_recovery(), " + snapshot + ", pg_last_wal_replay_lsn(), " + follows
	}
	return "SELECT pg_is_in_recovery()"
}

// dial logs in and finds out what the server can be asked.
func (d *pgDialer) dial(ctx context.Context, n NodeConfig) (link, error) {
	conn, err := d.connect(ctx, n, nil)
	if err != nil {
		return nil, err
	}
	l := &pgLink{dialer: d, node: n, conn: conn, can: allCapabilities, prepared: map[string]bool{}}
	if err := l.begin(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// begin prepares the probe, after finding out what the server answers if it does not answer all.
func (l *pgLink) begin(ctx context.Context) error {
	stop := l.bound(ctx)
	defer stop()
	err := l.prepareProbe()
	if err == nil {
		_, err = l.run(stmtProbe)
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	if l.can, err = l.capabilities(); err != nil {
		return err
	}
	l.prepared = map[string]bool{}
	if _, err := l.conn.Exec(context.Background(), "DEALLOCATE ALL").ReadAll(); err != nil {
		return err
	}
	return l.prepareProbe()
}

// capabilities tries each group of questions for itself.
func (l *pgLink) capabilities() (capability, error) {
	var can capability
	for c := capability(1); c <= allCapabilities; c <<= 1 {
		sql, _ := probeSQL(c)
		if c == canSnapshot {
			sql = "SELECT pg_snapshot_xmin(pg_current_snapshot()), age('3'::xid)"
		}
		_, err := l.conn.Exec(context.Background(), sql).ReadAll()
		var pg *pgconn.PgError
		switch {
		case err == nil:
			can |= c
		case !errors.As(err, &pg):
			return 0, err
		case pg.Severity == "FATAL":
			return 0, err
		}
	}
	return can, nil
}

// bound makes the end of ctx end what runs on the connection: by its deadline, and at once when it
// is cancelled.
func (l *pgLink) bound(ctx context.Context) (stop func()) {
	deadline, _ := ctx.Deadline()
	// A socket that takes no deadline is closed already; the next call says so.
	_ = l.conn.Conn().SetDeadline(deadline)
	end := context.AfterFunc(ctx, func() { _ = l.conn.Conn().SetDeadline(time.Unix(1, 0)) })
	return func() { end() }
}

// prepareProbe prepares the probe for what the server can be asked.
func (l *pgLink) prepareProbe() error {
	sql, names := probeSQL(l.can)
	l.columns = names
	return l.prepare(stmtProbe, sql)
}

// prepare prepares a statement unless it is.
func (l *pgLink) prepare(name, sql string) error {
	if l.prepared[name] {
		return nil
	}
	if _, err := l.conn.Prepare(context.Background(), name, sql, nil); err != nil {
		return err
	}
	l.prepared[name] = true
	return nil
}

// run executes a prepared statement that answers one row.
func (l *pgLink) run(name string) ([][]byte, error) {
	res := l.conn.ExecPrepared(context.Background(), name, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, res.Err
	}
	if len(res.Rows) != 1 {
		return nil, fmt.Errorf("probe: %d rows", len(res.Rows))
	}
	return res.Rows[0], nil
}

// probe asks everything. A node that was promoted between two parts of the question answers with an
// error once; it is asked again.
func (l *pgLink) probe(ctx context.Context, deadline time.Time) (*observation, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	stop := l.bound(ctx)
	defer stop()
	sent := Clock()
	row, err := l.run(stmtProbe)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Severity == "ERROR" {
		sent = Clock()
		row, err = l.run(stmtProbe)
	}
	if err != nil {
		return nil, err
	}
	o, err := l.read(row)
	if err != nil {
		return nil, err
	}
	o.sent = sent
	l.readHistory(ctx, o)
	l.last = o
	return o, nil
}

// readHistory adds where o's timeline came from. Without it the node is still a node: only rule 3
// knows less. A server that was in recovery at the last probe is reported without it first, since
// fetching it can take longer than everything else.
func (l *pgLink) readHistory(ctx context.Context, o *observation) {
	switch {
	case o.recovery || o.timeline == 0:
	case o.timeline == 1:
		o.forks = true
	case l.last != nil && l.last.recovery && l.last.start == o.start:
	default:
		o.history, o.forks = l.dialer.history(ctx, l.node, o)
	}
}

// read turns the probe's row into an observation.
func (l *pgLink) read(row [][]byte) (*observation, error) {
	if len(row) != len(l.columns) {
		return nil, fmt.Errorf("probe: %d columns, not %d", len(row), len(l.columns))
	}
	r := fields{}
	for i, name := range l.columns {
		r[name] = row[i]
	}
	o := &observation{
		version: int(r.number("version")), recovery: r.yes("recovery"), readOnly: r.yes("readonly"),
		system: r.number("system"), start: int64(r.number("start")), server: string(r["server"]),
		previous: uint32(r.number("previous")), flush: r.lsn("flush"), received: r.lsn("received"),
		replayed: r.lsn("replayed"), paused: r.yes("paused"), receiving: r.yes("receiving"),
		follows: uint32(r.number("follows")), sender: string(r["sender"]), senderAt: int(r.number("senderport")),
		latestEnd: r.lsn("latestend"), lastMsg: -1, can: l.can, settings: string(r["settings"]),
	}
	if len(r["lastmsg"]) > 0 {
		o.lastMsg = int64(r.number("lastmsg")) * int64(time.Microsecond)
	}
	if l.last != nil && l.last.recovery == o.recovery {
		o.timeline = l.last.timeline
	}
	if o.recovery {
		o.timeline = max(o.timeline, o.follows, uint32(r.number("checkpoint")), uint32(r.number("minimum")))
	} else if t := string(r["timeline"]); t != "" {
		n, err := strconv.ParseUint(t, 16, 32)
		if err != nil {
			return nil, fmt.Errorf("probe: timeline %q: %w", t, err)
		}
		o.timeline = uint32(n)
	}
	l.page, l.segment = r.number("page"), r.number("segment")
	l.roles = l.can&canSettings != 0 && r.number("roles") <= manyRoles
	l.async = l.can&canSettings == 0 || r.yes("async") || string(r["commit"]) == "off"
	return o, nil
}

// sample asks the cheap question that fits what the last probe saw.
func (l *pgLink) sample(ctx context.Context, deadline time.Time) (sample, error) {
	name := stmtBare
	switch {
	case l.can&canPositions == 0 || l.last == nil:
	case l.last.recovery:
		name = stmtStandby
	case l.roles:
		name = stmtRoles
	default:
		name = stmtPrimary
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	stop := l.bound(ctx)
	defer stop()
	if err := l.prepare(name, sampleSQL(name, l.can)); err != nil {
		return sample{}, err
	}
	row, err := l.run(name)
	if err != nil {
		return sample{}, err
	}
	return l.readSample(name, row)
}

// readSample turns a sample's row into one.
func (l *pgLink) readSample(name string, row [][]byte) (sample, error) {
	r := fields{}
	names := []string{"recovery", "xmin", "xmax", "age", "a", "b", "commit", "async"}
	if len(row) > len(names) {
		return sample{}, fmt.Errorf("sample: %d columns", len(row))
	}
	for i := range row {
		r[names[i]] = row[i]
	}
	s := sample{recovery: r.yes("recovery"), xmin: r.number("xmin"), xmax: r.number("xmax")}
	if l.last != nil {
		s.turned = l.last.recovery != s.recovery
		s.timeline = l.last.timeline
	}
	if s.turned {
		return s, nil
	}
	switch name {
	case stmtStandby:
		s.replay = r.lsn("a")
		s.timeline = max(s.timeline, uint32(r.number("b")))
	case stmtPrimary, stmtRoles:
		s.insert = behindHeader(r.lsn("a"), l.page, l.segment)
		s.flush = r.lsn("b")
		s.next = nextXID(s.xmax, string(r["age"]))
		s.async = string(r["commit"]) == "off" || r.yes("async") || name == stmtPrimary && l.async
	}
	return s, nil
}

// close ends the connection without waiting for the server.
func (l *pgLink) close() {
	// pgconn's own Close would wait for a server that may be stuck; the socket is what matters.
	_ = l.conn.Conn().SetDeadline(time.Now().Add(20 * time.Millisecond))
	hangUp(l.conn)
}

// nextXID is the id that the next transaction gets, from age('3'::xid), which counts from there
// modulo 2³², and a full xmax, which lies less than 2³¹ below it; 0 if it is not known.
func nextXID(xmax uint64, age string) uint64 {
	n, err := strconv.ParseInt(age, 10, 32)
	if err != nil || xmax == 0 {
		return 0
	}
	next := uint32(int32(n)) + 3
	return xmax + uint64(next-uint32(xmax))
}

// fields are a row's columns by name; what is missing or NULL is zero.
type fields map[string][]byte

// number is an unsigned number.
func (f fields) number(name string) uint64 {
	n, err := strconv.ParseUint(string(f[name]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// yes is a boolean, or a setting that is on.
func (f fields) yes(name string) bool { s := string(f[name]); return s == "t" || s == "on" }

// lsn is a position.
func (f fields) lsn(name string) lsn {
	p, err := parseLSN(string(f[name]))
	if err != nil {
		return 0
	}
	return p
}
