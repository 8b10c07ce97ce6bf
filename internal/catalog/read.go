package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// rawEncoding is the client encoding in which the server converts nothing.
const rawEncoding = "SQL_ASCII"

// readFacts reads everything about one database over a connection of its own, in one
// transaction. Names come in UTF-8 where the database's encoding can be converted, in its
// own bytes otherwise.
func readFacts(ctx context.Context, target *pgconn.Config, timeout time.Duration, c *cache) (*facts, error) {
	f, err := readEncoded(ctx, target, timeout, c, false)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (pgErr.Code == "22P05" || pgErr.Code == "22021") {
		// Some body holds bytes that cannot be converted.
		c.clear()
		return readEncoded(ctx, target, timeout, c, true)
	}
	return f, err
}

// readEncoded is readFacts with the encoding decided.
func readEncoded(ctx context.Context, target *pgconn.Config, timeout time.Duration, c *cache, raw bool) (*facts, error) {
	cfg := target.Copy()
	cfg.Fallbacks = nil
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = timeout
	}
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = make(map[string]string)
	}
	ms := strconv.FormatInt(timeout.Milliseconds(), 10)
	for name, value := range map[string]string{
		"application_name":                    "pgweir catalog",
		"search_path":                         "pg_catalog",
		"statement_timeout":                   ms,
		"lock_timeout":                        ms,
		"idle_in_transaction_session_timeout": ms,
		"default_transaction_read_only":       "on",
		"client_encoding":                     rawEncoding,
		"jit":                                 "off",
		"max_parallel_workers_per_gather":     "0",
	} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to read the catalog: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r := &reader{
		run: func(sql string) *pgconn.MultiResultReader { return conn.Exec(ctx, sql) },
		query: func(sql string, params [][]byte) *pgconn.ResultReader {
			return conn.ExecParams(ctx, sql, params, nil, nil, nil)
		},
		cache: c,
		facts: &facts{},
	}
	if enc := conn.ParameterStatus("server_encoding"); !raw && enc != "UTF8" && enc != rawEncoding {
		// Where there is no conversion the names stay in the database's own bytes.
		if err := r.run("SET client_encoding TO 'UTF8'").Close(); err != nil && conn.IsClosed() {
			return nil, fmt.Errorf("choose the encoding: %w", err)
		}
	}
	r.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	r.everything()
	r.exec("COMMIT")
	if r.err != nil {
		return nil, r.err
	}
	return r.facts, nil
}

// reader runs queries until the first error, which it keeps.
type reader struct {
	run   func(sql string) *pgconn.MultiResultReader
	query func(sql string, params [][]byte) *pgconn.ResultReader
	cache *cache
	facts *facts
	err   error
}

// exec runs a statement without rows.
func (r *reader) exec(sql string) {
	if r.err == nil {
		if err := r.run(sql).Close(); err != nil {
			r.err = fmt.Errorf("run %q: %w", sql, err)
		}
	}
}

// rows runs a query and hands each row to each; the row's bytes are valid during the call.
func (r *reader) rows(what, sql string, each func(row row), args ...string) {
	if r.err != nil {
		return
	}
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	result := r.query(sql, params)
	for result.NextRow() {
		each(row(result.Values()))
	}
	if _, err := result.Close(); err != nil {
		r.err = fmt.Errorf("read %s: %w", what, err)
	}
}

// row is one row in text format; NULL is nil.
type row [][]byte

// oid reads a column that holds an oid or another unsigned number; NULL is 0.
func (r row) oid(i int) uint32 {
	n, _ := parseNumber(r[i])
	return n
}

// byte returns the only byte of a "char" column, 0 for NULL.
func (r row) byte(i int) byte {
	if len(r[i]) == 0 {
		return 0
	}
	return r[i][0]
}

// bool reads a boolean; NULL is false.
func (r row) bool(i int) bool { return len(r[i]) == 1 && r[i][0] == 't' }

// name returns a name as the one string that all who use it share.
func (r *reader) name(b []byte) string { return r.cache.names.text(r.cache.names.number(b)) }

// everything runs all queries.
func (r *reader) everything() {
	r.server()
	r.schemas()
	r.members()
	r.functions()
	r.bodies()
	r.operators()
	r.relations()
	r.rules()
	r.expressions()
	r.types()
}

// server reads what belongs to the server and the database as a whole.
func (r *reader) server() {
	f := r.facts
	f.rights = &rights{roles: make(map[string]role), members: make(map[uint32][]uint32), byName: make(map[string]int)}
	r.rows("the database", `SELECT oid, datdba, current_setting('server_version_num') FROM pg_database WHERE datname = current_database()`,
		func(row row) {
			f.database, f.rights.owner = row.oid(0), row.oid(1)
			f.version = int(row.oid(2))
		})
	f.settings = make(map[string]bool)
	r.rows("settings", `SELECT lower(name), context IN ('user', 'superuser') FROM pg_settings`,
		func(row row) { f.settings[string(row[0])] = row.bool(1) })
	// A default that the reading role brings along hides the server's own.
	r.rows("the default isolation", `SELECT reset_val = 'serializable' OR source IN ('user', 'database user') FROM pg_settings WHERE name = 'default_transaction_isolation'`,
		func(row row) { f.isolation.server = row.bool(0) })
	names := make(map[uint32]string)
	r.rows("roles", `SELECT oid, rolname, rolsuper FROM pg_roles`, func(row row) {
		name := r.name(row[1])
		names[row.oid(0)] = name
		f.rights.roles[name] = role{oid: row.oid(0), super: row.bool(2)}
	})
	f.isolation.roles = make(map[string]bool)
	r.rows("role and database settings", `
		SELECT s.setdatabase, s.setrole, lower(split_part(c, '=', 2)) = 'serializable'
		FROM pg_db_role_setting s, unnest(s.setconfig) c
		WHERE s.setdatabase IN (0, $1::oid) AND lower(split_part(c, '=', 1)) = 'default_transaction_isolation'
		ORDER BY s.setdatabase`, func(row row) {
		value := row.bool(2)
		switch id := row.oid(1); {
		case id != 0:
			f.isolation.roles[names[id]] = value
		default:
			f.isolation.database = &value
		}
	}, strconv.Itoa(int(f.database)))
	f.languages = make(map[uint32]language)
	r.rows("languages", `SELECT oid, lanname, lanpltrusted FROM pg_language`, func(row row) {
		f.languages[row.oid(0)] = language{name: r.name(row[1]), trusted: row.bool(2)}
	})
}

// schemas reads the schemas and who may use them. Other sessions' temporary ones are left out.
func (r *reader) schemas() {
	f := r.facts
	f.namespaces = make(map[uint32]string)
	r.rows("schemas", `
		SELECT n.oid, n.nspname, a.grantee
		FROM pg_namespace n
		LEFT JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a ON a.privilege_type = 'USAGE'
		WHERE n.nspname !~ '^pg_(toast_)?temp_[0-9]+$'
		ORDER BY n.oid`, func(row row) {
		name := r.name(row[1])
		i, ok := f.rights.byName[name]
		if !ok {
			i = len(f.rights.schemas)
			f.rights.byName[name] = i
			f.rights.schemas = append(f.rights.schemas, schema{name: name})
			f.namespaces[row.oid(0)] = name
		}
		if row[2] != nil {
			s := &f.rights.schemas[i]
			s.usage = append(s.usage, row.oid(2))
		}
	})
}

// members reads whose privileges a role inherits: by the role's own attribute up to 15, by
// each membership's option since.
func (r *reader) members() {
	sql := `SELECT m.member, m.roleid FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolinherit`
	if r.facts.version >= 160000 {
		sql = `SELECT member, roleid FROM pg_auth_members WHERE inherit_option`
	}
	r.rows("memberships", sql, func(row row) {
		r.facts.rights.members[row.oid(0)] = append(r.facts.rights.members[row.oid(0)], row.oid(1))
	})
}

// operators reads operators, casts and aggregates: what names functions by oid.
func (r *reader) operators() {
	f := r.facts
	r.rows("operators", `SELECT oid, oprcode::oid, oprname FROM pg_operator WHERE oprcode <> 0`, func(row row) {
		f.operators = append(f.operators, operator{oid: row.oid(0), function: row.oid(1), name: r.name(row[2])})
	})
	f.typeNames = make(map[uint32]string)
	r.rows("casts", `
		SELECT c.castsource, c.casttarget, c.castfunc, c.castcontext = 'i', s.typname, t.typname
		FROM pg_cast c JOIN pg_type s ON s.oid = c.castsource JOIN pg_type t ON t.oid = c.casttarget
		WHERE c.castfunc <> 0`, func(row row) {
		f.casts = append(f.casts, castFact{source: row.oid(0), target: row.oid(1), function: row.oid(2), implicit: row.bool(3)})
		f.typeNames[row.oid(0)], f.typeNames[row.oid(1)] = r.name(row[4]), r.name(row[5])
	})
	f.aggregates = make(map[uint32][]uint32)
	r.rows("aggregates", `
		SELECT aggfnoid::oid, aggtransfn::oid, aggfinalfn::oid, aggcombinefn::oid, aggserialfn::oid,
			aggdeserialfn::oid, aggmtransfn::oid, aggminvtransfn::oid, aggmfinalfn::oid
		FROM pg_aggregate WHERE aggfnoid >= 16384`, func(row row) {
		for i := 1; i < len(row); i++ {
			if fn := row.oid(i); fn != 0 {
				f.aggregates[row.oid(0)] = append(f.aggregates[row.oid(0)], fn)
			}
		}
	})
	r.rows("event triggers", `SELECT evtfoid FROM pg_event_trigger WHERE evtenabled <> 'D' AND evtevent <> 'login'`,
		func(row row) { f.ddlTriggers = append(f.ddlTriggers, row.oid(0)) })
}

// relations reads what can be named in FROM and how relations hang together.
func (r *reader) relations() {
	f := r.facts
	r.rows("relations", `
		SELECT oid, relnamespace, relname, relkind, relpersistence, relrowsecurity
		FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'`, func(row row) {
		f.relations = append(f.relations, relation{
			oid: row.oid(0), schema: row.oid(1), name: r.name(row[2]),
			kind: row.byte(3), persistence: row.byte(4), policies: row.bool(5),
		})
	})
	r.rows("inheritance", `
		SELECT i.inhparent, i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'`,
		func(row row) { f.inherits = append(f.inherits, pair{row.oid(0), row.oid(1)}) })
	r.rows("foreign keys", `
		SELECT confrelid, conrelid FROM pg_constraint
		WHERE contype = 'f' AND (confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('c', 'n', 'd'))`,
		func(row row) { f.cascades = append(f.cascades, pair{row.oid(0), row.oid(1)}) })
	r.rows("foreign tables", `
		SELECT t.ftrelid, w.fdwhandler FROM pg_foreign_table t
		JOIN pg_foreign_server s ON s.oid = t.ftserver JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
		WHERE w.fdwhandler <> 0`,
		func(row row) { f.handlers = append(f.handlers, pair{row.oid(0), row.oid(1)}) })
	r.rows("identity columns", `SELECT DISTINCT attrelid FROM pg_attribute WHERE attidentity <> '' AND attnum > 0 AND NOT attisdropped`,
		func(row row) { f.identities = append(f.identities, row.oid(0)) })
}

// expressions reads the expressions that belong to relations and domains, and triggers.
func (r *reader) expressions() {
	f := r.facts
	tree := func(owner uint32, use when, function uint32, texts ...[]byte) {
		out := &code{}
		for _, t := range texts {
			scanTree(t, out, r.cache.names)
		}
		if c := out.seal(); c != nil || function != 0 {
			f.expressions = append(f.expressions, expression{owner: owner, use: use, function: function, code: c})
		}
	}
	r.rows("triggers", `SELECT tgrelid, tgfoid, tgqual::text FROM pg_trigger WHERE tgfoid >= 16384 AND tgenabled <> 'D'`,
		func(row row) { tree(row.oid(0), onWrite, row.oid(1), row[2]) })
	r.rows("defaults", `
		SELECT adrelid, b FROM (SELECT adrelid, adbin::text AS b FROM pg_attrdef) d
		WHERE b LIKE '%:funcid %' OR b LIKE '%:opno %' OR b LIKE '%:seqid %' OR b LIKE '%:resulttype %'`,
		func(row row) { tree(row.oid(0), onWrite, 0, row[1]) })
	r.rows("check constraints", `SELECT conrelid, contypid, conbin::text FROM pg_constraint WHERE contype = 'c'`, func(row row) {
		if domain := row.oid(1); domain != 0 {
			tree(domain, onType, 0, row[2])
			return
		}
		tree(row.oid(0), onWrite, 0, row[2])
	})
	r.rows("index expressions", `SELECT indrelid, indexprs::text, indpred::text FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL`,
		func(row row) { tree(row.oid(0), onWrite, 0, row[1], row[2]) })
	r.rows("partition keys", `SELECT partrelid, partexprs::text FROM pg_partitioned_table WHERE partexprs IS NOT NULL`,
		func(row row) { tree(row.oid(0), onWrite, 0, row[1]) })
	r.rows("policies", `SELECT polrelid, polcmd, polqual::text, polwithcheck::text FROM pg_policy`, func(row row) {
		use := onPolicy
		if c := row.byte(1); c == '*' || c == 'r' {
			use |= onPolicyRead
		}
		tree(row.oid(0), use, 0, row[2], row[3])
	})
}
