package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// facts is what one node said of itself. What could not be asked is missing.
type facts struct {
	node    Node
	failure error // nothing else is known then
	// identities are what single connections said about which server they reached: several for
	// an address behind which there are several servers.
	identities []string
	version    int
	inRecovery bool
	system     string // system identifier, "" without the right to ask
	timeline   string
	receiver   string // status of the WAL receiver, "" when there is none
	replayPaused,
	superuser, monitor, signals, replication bool
	lookup         string // "" when the query of auth works, otherwise what it said
	settings       map[string]string
	collations     map[string]string // provider → version of the library
	stale          []string          // databases whose recorded collation version is not the library's
	installed      map[string]string // extension → version, in the monitor's database
	available      map[string]bool   // "extension version" that the files of the node hold
	loginRoles     int               // roles that may log in
	databases      []string          // that take connections
	certificateEnd time.Time         // of the node's certificate, zero without TLS
	encrypted      bool
}

// checkTimeout bounds everything that is asked of one node.
const checkTimeout = 15 * time.Second

// gather asks all nodes of a cluster at the same time.
func gather(ctx context.Context, login monitorLogin, nodes []Node, auth Auth) []*facts {
	out := make([]*facts, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			f := &facts{node: n}
			if err := f.ask(ctx, login, auth); err != nil {
				f.failure = err
			}
			out[i] = f
		})
	}
	wg.Wait()
	return out
}

// identityLooks is how many further connections are made to see whether they reach the same server.
const identityLooks = 5

// identitySQL tells one server from another without any right.
const identitySQL = "SELECT pg_postmaster_start_time()::text || ' ' || pg_is_in_recovery()::text"

// ask fills f. The error says why the node could not be asked at all.
func (f *facts) ask(ctx context.Context, login monitorLogin, auth Auth) error {
	conn, err := login.connect(ctx, f.node, "")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	q := querier{conn}
	if state, ok := conn.Conn().(*tls.Conn); ok {
		f.encrypted = true
		if certs := state.ConnectionState().PeerCertificates; len(certs) > 0 {
			f.certificateEnd = certs[0].NotAfter
		}
	}
	if err := f.basics(ctx, q); err != nil {
		return err
	}
	f.rights(ctx, q, auth)
	f.receiverState(ctx, q)
	f.files(ctx, q)
	f.identities = append(f.identities, q.one(ctx, identitySQL))
	for range identityLooks {
		if again, err := login.again(ctx, f.node, f.encrypted); err == nil {
			f.identities = append(f.identities, querier{again}.one(ctx, identitySQL))
			_ = again.Close(ctx)
		}
	}
	return nil
}

// basics asks what every role may know.
func (f *facts) basics(ctx context.Context, q querier) error {
	rows, err := q.rows(ctx, `SELECT current_setting('server_version_num'), pg_is_in_recovery(),
		(SELECT count(*) FROM pg_roles WHERE rolcanlogin)`)
	if err != nil {
		return err
	}
	f.version, _ = strconv.Atoi(rows[0][0])
	f.inRecovery = rows[0][1] == "t"
	f.loginRoles, _ = strconv.Atoi(rows[0][2])
	names, err := q.rows(ctx, "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
	if err != nil {
		return err
	}
	for _, r := range names {
		f.databases = append(f.databases, r[0])
	}
	settings, err := q.rows(ctx, "SELECT name, setting || coalesce(unit, '') FROM pg_settings")
	if err != nil {
		return err
	}
	f.settings = map[string]string{}
	for _, r := range settings {
		f.settings[r[0]] = r[1]
	}
	f.system = q.one(ctx, "SELECT system_identifier FROM pg_control_system()")
	return nil
}

// rights asks what the monitor may do.
func (f *facts) rights(ctx context.Context, q querier, auth Auth) {
	if rows, err := q.rows(ctx, `SELECT rolsuper, rolreplication OR rolsuper,
		pg_has_role(current_user, 'pg_monitor', 'USAGE'), pg_has_role(current_user, 'pg_signal_backend', 'USAGE')
		FROM pg_roles WHERE rolname = current_user`); err == nil && len(rows) == 1 {
		f.superuser, f.replication, f.monitor, f.signals = rows[0][0] == "t", rows[0][1] == "t", rows[0][2] == "t", rows[0][3] == "t"
	}
	if auth.Query == "off" {
		return
	}
	sql := auth.Query
	if sql == "default" {
		sql = DefaultAuthQuery
	}
	reader := q.conn.ExecParams(ctx, sql, [][]byte{[]byte("pgweir check")}, nil, nil, nil)
	for reader.NextRow() { // nobody has that name
	}
	columns := len(reader.FieldDescriptions())
	switch _, err := reader.Close(); {
	case err != nil:
		f.lookup = message(err)
	case columns < 2:
		f.lookup = "it must return two columns, name and secret"
	}
}

// receiverState asks where a standby's WAL comes from.
func (f *facts) receiverState(ctx context.Context, q querier) {
	if !f.inRecovery {
		f.timeline = q.one(ctx, "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int")
		return
	}
	if rows, err := q.rows(ctx, "SELECT status, received_tli FROM pg_stat_wal_receiver"); err == nil && len(rows) == 1 {
		f.receiver, f.timeline = rows[0][0], rows[0][1]
	}
	f.replayPaused = q.one(ctx, "SELECT pg_is_wal_replay_paused()") == "t"
}

// files asks what the machine of the node holds beside its data: libraries and extensions.
func (f *facts) files(ctx context.Context, q querier) {
	f.collations, f.installed, f.available = map[string]string{}, map[string]string{}, map[string]bool{}
	// One collation a provider tells the version of its library.
	if rows, err := q.rows(ctx, `SELECT collprovider, max(pg_collation_actual_version(oid)) FROM pg_collation
		WHERE collname IN ('en_US.utf8', 'en_US', 'C.utf8', 'en-x-icu', 'und-x-icu') GROUP BY 1`); err == nil {
		for _, r := range rows {
			if r[1] != "" {
				f.collations[map[string]string{"c": "libc", "i": "icu"}[r[0]]] = r[1]
			}
		}
	}
	if f.version >= 150000 {
		if rows, err := q.rows(ctx, `SELECT datname FROM pg_database
			WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid)`); err == nil {
			for _, r := range rows {
				f.stale = append(f.stale, r[0])
			}
		}
		if rows, err := q.rows(ctx, `SELECT datlocprovider, max(pg_database_collation_actual_version(oid)) FROM pg_database GROUP BY 1`); err == nil {
			for _, r := range rows {
				if name := map[string]string{"c": "libc", "i": "icu"}[r[0]]; name != "" && r[1] != "" && f.collations[name] == "" {
					f.collations[name] = r[1]
				}
			}
		}
	}
	if rows, err := q.rows(ctx, "SELECT extname, extversion FROM pg_extension"); err == nil {
		for _, r := range rows {
			f.installed[r[0]] = r[1]
		}
	}
	if rows, err := q.rows(ctx, "SELECT name, version FROM pg_available_extension_versions"); err == nil {
		for _, r := range rows {
			f.available[r[0]+" "+r[1]] = true
		}
	}
}

// querier runs small queries on one connection.
type querier struct{ conn *pgconn.PgConn }

// rows are the rows of the only statement of sql as text; NULL is "".
func (q querier) rows(ctx context.Context, sql string) ([][]string, error) {
	results, err := q.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range results[len(results)-1].Rows {
		row := make([]string, len(r))
		for i, v := range r {
			row[i] = string(v)
		}
		out = append(out, row)
	}
	return out, nil
}

// one is the single value of sql, "" when there is none or it may not be asked.
func (q querier) one(ctx context.Context, sql string) string {
	rows, err := q.rows(ctx, sql)
	if err != nil || len(rows) != 1 {
		return ""
	}
	return rows[0][0]
}

// message is what a server said, or the innermost cause of a failed attempt to ask.
func message(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Message
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// duration is a setting of time, 0 when it is off or unknown.
func (f *facts) duration(name string) time.Duration {
	v := f.settings[name]
	for unit, size := range map[string]time.Duration{"ms": time.Millisecond, "min": time.Minute} {
		if n, err := strconv.Atoi(strings.TrimSuffix(v, unit)); err == nil && strings.HasSuffix(v, unit) {
			return time.Duration(n) * size
		}
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(v, "s")); err == nil && strings.HasSuffix(v, "s") {
		return time.Duration(n) * time.Second
	}
	return 0
}

// number is a setting without a unit, 0 when it is unknown.
func (f *facts) number(name string) int {
	n, _ := strconv.Atoi(f.settings[name])
	return n
}

// release is the version as people write it.
func (f *facts) release() string { return fmt.Sprintf("%d.%d", f.version/10000, f.version%10000) }

// distinct groups the nodes that could be asked by what of says; "" counts for nothing.
func distinct(all []*facts, of func(*facts) string) map[string][]string {
	out := map[string][]string{}
	for _, f := range all {
		if v := of(f); f.failure == nil && v != "" {
			out[v] = append(out[v], f.node.Name)
		}
	}
	return out
}

// spread is distinct in words: "15.18 on pg-a, 15.19 on pg-b and pg-c".
func spread(groups map[string][]string) string {
	var parts []string
	for v, names := range groups {
		parts = append(parts, v+" on "+strings.Join(names, " and "))
	}
	slices.SortFunc(parts, cmp.Compare[string])
	return strings.Join(parts, ", ")
}
