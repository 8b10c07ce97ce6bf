package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/router"
)

// rolesSQL makes roles and schemas whose rights differ in every way that USAGE can be had.
const rolesSQL = `
	CREATE ROLE p_plain; CREATE ROLE p_group; CREATE ROLE p_deep; CREATE ROLE p_noinherit NOINHERIT;
	CREATE ROLE p_owner; CREATE ROLE p_reader; CREATE ROLE p_super SUPERUSER; CREATE ROLE "P Quoted, ""x""";
	CREATE ROLE p_chain;
	GRANT p_group TO p_deep, p_noinherit; GRANT p_deep TO p_chain; GRANT pg_read_all_data TO p_reader;
	CREATE SCHEMA s_public; GRANT USAGE ON SCHEMA s_public TO PUBLIC;
	CREATE SCHEMA s_group; GRANT USAGE ON SCHEMA s_group TO p_group;
	CREATE SCHEMA s_nobody;
	CREATE SCHEMA s_revoked AUTHORIZATION p_plain; REVOKE ALL ON SCHEMA s_revoked FROM p_plain;
	CREATE SCHEMA s_dbowner; GRANT USAGE ON SCHEMA s_dbowner TO pg_database_owner;
	CREATE SCHEMA p_plain AUTHORIZATION p_plain;
	CREATE SCHEMA p_group;
	CREATE SCHEMA "P Quoted, ""x""" AUTHORIZATION "P Quoted, ""x""";
	CREATE SCHEMA "MiXed"; GRANT USAGE ON SCHEMA "MiXed" TO PUBLIC;
	CREATE SCHEMA a2345678901234567890123456789012345678901234567890123456789éx; GRANT USAGE ON SCHEMA a2345678901234567890123456789012345678901234567890123456789éx TO PUBLIC;
	ALTER DATABASE paths OWNER TO p_owner;
	REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC;
`

// pathRoles are the roles of rolesSQL.
var pathRoles = []string{"p_plain", "p_group", "p_deep", "p_noinherit", "p_owner", "p_reader", "p_super", `P Quoted, "x"`, "p_chain", "postgres"}

// pathSettings are values of search_path, as the client may have spelled them.
var pathSettings = []string{
	`"$user", public`,
	``,
	`""`,
	`$user`,
	`public, s_public, s_group, s_nobody, s_revoked, s_dbowner, p_plain, p_group`,
	`s_group,S_Public,"S_Public",MiXed,"MiXed"`,
	`pg_catalog, public`,
	`public, pg_catalog`,
	`pg_temp, public`,
	`missing, s_nobody, pg_temp, public`,
	`pg_catalog, pg_temp`,
	`public, pg_temp, "$user"`,
	`public, public, "$user", "$user"`,
	`"P Quoted, ""x""", missing, information_schema`,
	`a2345678901234567890123456789012345678901234567890123456789éx`,
	`a2345678901234567890123456789012345678901234567890123456789éxyzzzzzzzzzzzz`,
	` 	public ,
	s_public `,
	`pg_toast`,
}

// query returns the results of all statements, or the error.
func query(t *testing.T, conn *pgconn.PgConn, sql string) ([]*pgconn.Result, error) {
	t.Helper()
	return conn.Exec(t.Context(), sql).ReadAll()
}

// TestPathIsTheServers compares resolved paths with current_schemas on a real server, for
// every role and setting, with and without temporary tables.
func TestPathIsTheServers(t *testing.T) {
	database(t, "paths")
	run(t, "paths", rolesSQL)
	d, err := Read(t.Context(), super(t, "paths"), Rules{}, DefaultConfig().StatementTimeout)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), super(t, "paths"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	quote := func(s, q string) string { return q + strings.ReplaceAll(s, q, q+q) + q }
	for _, temp := range []bool{false, true} {
		if temp {
			if _, err := query(t, conn, "CREATE TEMP TABLE x (a int)"); err != nil {
				t.Fatal(err)
			}
		}
		for _, role := range pathRoles {
			for _, setting := range pathSettings {
				results, err := query(t, conn, fmt.Sprintf(`BEGIN; SELECT set_config('search_path', %s, true); SET LOCAL ROLE %s;
					SELECT s FROM unnest(current_schemas(true)) WITH ORDINALITY u(s, n) WHERE s !~ '^pg_temp' ORDER BY n;
					SELECT coalesce(current_schema() ~ '^pg_temp', false)`,
					quote(setting, "'"), quote(role, `"`)))
				p := d.Path(role, setting, temp)
				switch {
				case err != nil && p != nil:
					t.Errorf("%s, %s: the server says %v, we say %q", role, setting, err, p.Schemas)
				case err == nil && p == nil:
					t.Errorf("%s, %s: no path", role, setting)
				case err == nil:
					var want []string
					for _, row := range results[len(results)-2].Rows {
						want = append(want, string(row[0]))
					}
					if first := string(results[len(results)-1].Rows[0][0]); first == "t" != p.CreateTemp {
						t.Errorf("%s, %s: CREATE makes a temporary relation: %v", role, setting, !p.CreateTemp)
					}
					if strings.Join(p.Schemas, "|") != strings.Join(want, "|") || p.Temp != temp {
						t.Errorf("%s, %s: got %q, want %q", role, setting, p.Schemas, want)
					}
				}
				if _, err := query(t, conn, "ROLLBACK"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestPathIsInterned: equal paths are one pointer, whoever asks.
func TestPathIsInterned(t *testing.T) {
	database(t, "interned")
	run(t, "interned", `CREATE ROLE i_a; CREATE ROLE i_b`)
	d, err := Read(t.Context(), super(t, "interned"), Rules{}, DefaultConfig().StatementTimeout)
	if err != nil {
		t.Fatal(err)
	}
	a := d.Path("i_a", `"$user", public`, false)
	if b := d.Path("i_b", "public, nowhere", false); a == nil || a != b {
		t.Errorf("%p and %p differ", a, b)
	}
	if b := d.Path("i_a", `"$user", public`, true); a == b || !b.Temp {
		t.Error("a session with temporary tables has the path of one without")
	}
	if d.Path("i_c", "public", false) != nil || d.Path("i_a", "a,,b", false) != nil {
		t.Error("a path was made up")
	}
	for i := range 3 * maxInterned {
		d.m.interner.intern(router.Path{Schemas: []string{fmt.Sprint(i)}})
	}
	if n := len(d.m.interner.mu.paths); n > maxInterned {
		t.Errorf("%d paths are kept", n)
	}
	for i := range 3 * maxPaths {
		d.Path("i_a", fmt.Sprint("s", i), false)
	}
	if n := len(d.current.Load().paths.known); n > maxPaths {
		t.Errorf("%d spellings are kept", n)
	}
}

// TestDefaultIsolation: server, database, role and role in database, the nearest wins.
func TestDefaultIsolation(t *testing.T) {
	database(t, "iso")
	database(t, "iso_db")
	run(t, "iso_db", `
		CREATE ROLE iso_none; CREATE ROLE iso_role; CREATE ROLE iso_back; CREATE ROLE iso_here;
		ALTER ROLE iso_role SET default_transaction_isolation = 'Serializable';
		ALTER ROLE iso_back SET default_transaction_isolation = 'read committed';
		ALTER ROLE iso_role IN DATABASE iso_db SET default_transaction_isolation = 'repeatable read';
		ALTER ROLE iso_here IN DATABASE iso_db SET default_transaction_isolation = serializable;
		ALTER DATABASE iso_db SET default_transaction_isolation = 'serializable'`)
	for _, c := range []struct {
		db    string
		base  bool
		roles map[string]bool
	}{
		{"iso", false, map[string]bool{"iso_none": false, "iso_role": true, "iso_back": false, "iso_here": false}},
		{"iso_db", true, map[string]bool{"iso_none": true, "iso_role": false, "iso_back": false, "iso_here": true}},
	} {
		d, err := Read(t.Context(), super(t, c.db), Rules{}, DefaultConfig().StatementTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.View().DefaultIsolationSerializable; got != c.base {
			t.Errorf("%s: serializable is %v", c.db, got)
		}
		for role, want := range c.roles {
			if got := d.Serializable(role); got != want {
				t.Errorf("%s in %s: serializable is %v", role, c.db, got)
			}
		}
	}
}
