-- A schema with a case for every rule of the package. A line that starts with "--=" says
-- what the view must hold:
--   --= f NAME VERDICT [opaque] [nextval] [builtin]
--   --= r NAME KIND PERSISTENCE VERDICT [reason=…] [calls] [read-opaque] [read-nextval] [write-opaque] [write-nextval]
--   --= op NAME | type NAME | attr NAME        listed as not plain
-- Every function and relation of the schemas made here must have a line.

CREATE SCHEMA app;
CREATE SCHEMA other;
CREATE SCHEMA "Odd ""Name";
SET search_path = app, public;

-- Volatility as declared; overloads joined within a schema only.
--= f app.stable_fn read
CREATE FUNCTION stable_fn() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
--= f app.immutable_fn read
CREATE FUNCTION immutable_fn(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
--= f app.volatile_fn doubtful
CREATE FUNCTION volatile_fn() RETURNS int LANGUAGE sql AS 'SELECT 1';
--= f app.over doubtful
CREATE FUNCTION over(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION over(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
--= f other.over read
CREATE FUNCTION other.over(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
--= f Odd "Name.Quoted Fn read
CREATE FUNCTION "Odd ""Name"."Quoted Fn"() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
-- The default of a parameter runs in the caller.
--= f app.with_default primary nextval
CREATE SEQUENCE seq;
--= r app.seq S p primary reason=sequence
CREATE FUNCTION with_default(a bigint DEFAULT nextval('app.seq')) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';
-- A function declared stable is believed, whatever it reads.
--= f app.node_port read
CREATE FUNCTION node_port() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('port') $$;
--= f app.proc primary
CREATE PROCEDURE proc() LANGUAGE sql AS 'SELECT 1';
--= f app.proc_sets primary opaque passing
CREATE PROCEDURE proc_sets() LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''1MB''; END';
--= f app.definer doubtful
CREATE FUNCTION definer() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS 'BEGIN PERFORM 1; END';
-- Aggregates and window functions by what they are made of.
--= f app.step doubtful
CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
--= f app.bad_sum doubtful
CREATE AGGREGATE bad_sum(int) (SFUNC = step, STYPE = int, INITCOND = 0);
--= f app.good_sum read
CREATE AGGREGATE good_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = 0);

-- What bodies leave in the session.
--= f app.o_execute doubtful opaque
CREATE FUNCTION o_execute(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END';
--= f app.o_execute_format doubtful opaque
CREATE FUNCTION o_execute_format(q text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE format('ANALYZE %I', q); END$$;
--= f app.o_execute_constant doubtful
CREATE FUNCTION o_execute_constant() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SELECT 1'; END$$;
--= f app.o_execute_constant_set doubtful opaque passing
CREATE FUNCTION o_execute_constant_set() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SET work_mem = 1000'; END$$;
--= f app.o_return_query doubtful opaque
CREATE FUNCTION o_return_query(q text) RETURNS SETOF int LANGUAGE plpgsql AS 'BEGIN RETURN QUERY EXECUTE q; END';
--= f app.o_for_execute read opaque
CREATE FUNCTION o_for_execute(q text) RETURNS int LANGUAGE plpgsql STABLE AS 'DECLARE r record; BEGIN FOR r IN EXECUTE q LOOP RETURN 1; END LOOP; RETURN 0; END';
--= f app.o_set_config doubtful opaque
CREATE FUNCTION o_set_config() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.user', 'x', false) $$;
--= f app.o_set_config_local doubtful
CREATE FUNCTION o_set_config_local() RETURNS text LANGUAGE sql AS $$ SELECT pg_catalog.set_config('app.user', coalesce('x', 'y'), true) $$;
--= f app.o_set_config_named doubtful
CREATE FUNCTION o_set_config_named() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(is_local => true, setting_name => 'a.b', new_value => 'x'); END $$;
--= f app.o_set_config_variable doubtful opaque
CREATE FUNCTION o_set_config_variable(l bool) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.user', 'x', l) $$;
--= f app.o_set doubtful opaque passing
CREATE FUNCTION o_set() RETURNS void LANGUAGE plpgsql AS 'BEGIN IF true THEN SET search_path = public; END IF; END';
--= f app.o_set_local doubtful
CREATE FUNCTION o_set_local() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET LOCAL search_path = public; SET CONSTRAINTS ALL DEFERRED; END';
--= f app.o_set_role doubtful opaque passing
CREATE FUNCTION o_set_role() RETURNS void LANGUAGE sql AS 'SELECT 1; SET ROLE postgres';
--= f app.o_reset doubtful opaque passing
CREATE FUNCTION o_reset() RETURNS void LANGUAGE sql AS 'RESET ALL';
--= f app.o_lock doubtful opaque passing
CREATE FUNCTION o_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(1)';
--= f app.o_try_lock doubtful opaque passing
CREATE FUNCTION o_try_lock() RETURNS bool LANGUAGE sql AS 'SELECT pg_try_advisory_lock_shared(1)';
--= f app.o_xact_lock doubtful
CREATE FUNCTION o_xact_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(1)';
--= f app.o_listen doubtful opaque passing
CREATE FUNCTION o_listen() RETURNS void LANGUAGE plpgsql AS 'BEGIN LISTEN c; END';
--= f app.o_notify doubtful
CREATE FUNCTION o_notify() RETURNS void LANGUAGE plpgsql AS 'BEGIN NOTIFY c; PERFORM pg_notify(''a'', ''b''); END';
--= f app.o_load doubtful opaque
CREATE FUNCTION o_load() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOAD ''x''; END';
--= f app.o_temp doubtful opaque passing
CREATE FUNCTION o_temp() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE x (a int); END';
--= f app.o_temp_view doubtful opaque passing
CREATE FUNCTION o_temp_view() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE OR REPLACE LOCAL TEMPORARY VIEW x AS SELECT 1; END';
--= f app.o_temp_drop doubtful
CREATE FUNCTION o_temp_drop() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMPORARY TABLE x ON COMMIT DROP AS SELECT 1 AS a; UPDATE x SET a = 2; END';
--= f app.o_temp_delete doubtful opaque passing
CREATE FUNCTION o_temp_delete() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE x (a int) ON COMMIT DELETE ROWS; END';
--= f app.o_prepare doubtful opaque passing
CREATE FUNCTION o_prepare() RETURNS void LANGUAGE plpgsql AS 'BEGIN PREPARE x AS SELECT 1; END';
--= f app.o_setseed doubtful opaque
CREATE FUNCTION o_setseed() RETURNS void LANGUAGE sql AS 'SELECT setseed(0.5)';
--= f app.o_xml read opaque
CREATE FUNCTION o_xml(q text) RETURNS xml LANGUAGE sql STABLE AS 'SELECT query_to_xml(q, true, true, '''')';
--= f app.o_do doubtful opaque passing
CREATE FUNCTION o_do() RETURNS void LANGUAGE plpgsql AS $f$BEGIN DO $$ BEGIN SET work_mem = '1MB'; END $$; END$f$;
-- Near misses: the words in strings, comments, names and other clauses.
--= f app.near_misses doubtful
CREATE TABLE near (a int, "set" int, load int, reset int);
--= r app.near r p read
CREATE FUNCTION near_misses() RETURNS void LANGUAGE plpgsql AS $f$
DECLARE v text := 'SET x = 1; LISTEN y'; load int; temp int; "set" int;
BEGIN
	-- SET work_mem = 1; EXECUTE q;
	/* LISTEN x; /* nested */ RESET ALL */
	UPDATE app.near SET a = 1 WHERE a = 2;
	INSERT INTO app.near (a) VALUES (1) ON CONFLICT DO NOTHING;
	SELECT a, load INTO temp FROM app.near;
	load := 5; "set" := 1;
	GRANT EXECUTE ON FUNCTION app.stable_fn() TO PUBLIC;
	PERFORM v || ' set_config(' || $$ SET ROLE x; $$;
	ALTER TABLE app.near ALTER COLUMN a SET DEFAULT 1;
	CREATE TRIGGER t AFTER INSERT ON app.near EXECUTE FUNCTION app.f();
END $f$;

-- Through other functions, whatever their order, cycles included.
--= f app.n_outer doubtful opaque nextval
CREATE FUNCTION n_outer() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM n_middle(); END';
--= f app.n_middle doubtful opaque nextval
CREATE FUNCTION n_middle() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM other.n_inner(1), app.n_outer(); END';
--= f other.n_inner doubtful opaque nextval
CREATE FUNCTION other.n_inner(int) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''a.b'', ''x'', false); PERFORM nextval(''app.seq''); END';
--= f other.n_namesake doubtful
CREATE FUNCTION other.n_namesake() RETURNS void LANGUAGE sql AS 'SELECT 1';
--= f app.n_namesake doubtful opaque passing
CREATE FUNCTION n_namesake() RETURNS void LANGUAGE sql AS 'RESET ALL';
--= f app.n_qualified doubtful
CREATE FUNCTION n_qualified() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM other.n_namesake(); END';
--= f app.n_bare doubtful opaque passing
CREATE FUNCTION n_bare() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM n_namesake(); END';
-- Bodies kept parsed name exactly what they use.
--= f app.atomic_next doubtful nextval
CREATE FUNCTION atomic_next() RETURNS bigint BEGIN ATOMIC SELECT nextval('seq'); END;
--= f app.atomic_calls doubtful opaque
CREATE FUNCTION atomic_calls() RETURNS text BEGIN ATOMIC SELECT o_set_config(); END;
--= f app.atomic_local doubtful
CREATE FUNCTION atomic_local() RETURNS text BEGIN ATOMIC SELECT set_config('a.b', 'x', true); END;
--= f app.atomic_session doubtful opaque
CREATE FUNCTION atomic_session() RETURNS text BEGIN ATOMIC SELECT set_config('a.b', set_config('a.c', 'x', true), false); END;
--= f app.atomic_stable read
CREATE FUNCTION atomic_stable(a int) RETURNS int STABLE RETURN a + 1;

-- Operators and conversions in text.
--= f app.op_opaque doubtful opaque
CREATE FUNCTION op_opaque(int, int) RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', 'x', false) $$;
--= op <###>
CREATE OPERATOR <###> (LEFTARG = int, RIGHTARG = int, FUNCTION = op_opaque);
--= f app.uses_operator read opaque
CREATE FUNCTION uses_operator() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1 <###> 2; END';
--= f app.valid read opaque
CREATE FUNCTION valid(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT set_config('a.b', 'x', false) IS NOT NULL $$;
--= type validated
--= type _validated
CREATE DOMAIN validated AS int CHECK (valid(VALUE));
--= f app.uses_type read opaque
CREATE FUNCTION uses_type() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1::app.validated; END';
--= r app.has_validated r p read write-opaque
--= type has_validated
--= type _has_validated
CREATE TABLE has_validated (a validated);

-- Languages.
--= f app.c_volatile doubtful opaque
CREATE FUNCTION c_volatile() RETURNS trigger LANGUAGE c AS '$libdir/refint', 'check_primary_key';
--= f app.c_stable read
CREATE FUNCTION c_stable() RETURNS trigger LANGUAGE c STABLE AS '$libdir/refint', 'check_primary_key';
--= f app.internal_volatile doubtful opaque
CREATE FUNCTION internal_volatile(text, text, bool) RETURNS text LANGUAGE internal AS 'set_config_by_name';

-- What the configuration vouches for.
--= f app.vouched_read read
CREATE FUNCTION vouched_read() RETURNS int LANGUAGE sql AS 'SELECT 1';
--= f app.vouched_safe doubtful
CREATE FUNCTION vouched_safe(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END';
--= f app.calls_vouched doubtful
CREATE FUNCTION calls_vouched() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM vouched_safe(''x''); END';
CREATE SCHEMA vouched;
--= f vouched.anything read
CREATE FUNCTION vouched.anything() RETURNS int LANGUAGE sql AS 'SELECT 1';

-- Relations by kind and persistence.
--= r app.plain r p read
CREATE TABLE plain (id int PRIMARY KEY, a text);
--= r app.u r u primary reason=unlogged
CREATE UNLOGGED TABLE u (id int);
--= r app.serial r p read write-nextval
--= r app.serial_id_seq S p primary reason=sequence
CREATE TABLE serial (id serial);
--= r app.ident r p read write-nextval
--= r app.ident_id_seq S p primary reason=sequence
CREATE TABLE ident (id int GENERATED BY DEFAULT AS IDENTITY);
--= r app.part p p primary reason=unlogged
--= r app.part_1 r p read
--= r app.part_2 p p primary reason=unlogged
--= r app.part_2a r u primary reason=unlogged
CREATE TABLE part (a int, b int) PARTITION BY LIST (a);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2) PARTITION BY LIST (b);
CREATE UNLOGGED TABLE part_2a PARTITION OF part_2 DEFAULT;
--= r app.parent r p primary reason=foreign
--= r app.child f p primary reason=foreign
CREATE EXTENSION file_fdw SCHEMA other;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE TABLE parent (a text);
CREATE FOREIGN TABLE child () INHERITS (parent) SERVER files OPTIONS (filename '/nonexistent');
--= r app.remote f p primary reason=foreign
CREATE EXTENSION postgres_fdw SCHEMA other;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE remote (a int) SERVER far;
--= r app.Quoted "Rel r p read
CREATE TABLE "Quoted ""Rel" (a int);

-- Views, by the worst below them.
--= r app.v_plain v p read
CREATE VIEW v_plain AS SELECT id, upper(a), random(), clock_timestamp() FROM plain;
--= r app.v_volatile v p doubtful reason=volatile calls
CREATE VIEW v_volatile AS SELECT volatile_fn(), id FROM plain;
--= r app.v_stable v p read calls
CREATE VIEW v_stable AS SELECT stable_fn() AS s, id FROM plain;
--= r app.v_deep v p doubtful reason=volatile calls
CREATE VIEW v_deep AS SELECT s.* FROM (SELECT * FROM v_volatile WHERE EXISTS (SELECT 1 FROM v_plain)) s;
--= r app.v_unlogged v p primary reason=unlogged
CREATE VIEW v_unlogged AS WITH x AS (SELECT * FROM u) SELECT x.id FROM x, plain;
--= r app.v_partition v p primary reason=unlogged
CREATE VIEW v_partition AS SELECT * FROM part;
--= r app.v_foreign v p primary reason=foreign
CREATE VIEW v_foreign AS SELECT 1 AS x FROM parent;
--= r app.v_certain v p primary reason=unlogged calls
CREATE VIEW v_certain AS SELECT volatile_fn() FROM u;
--= r app.v_nextval v p primary reason=sequence read-nextval write-nextval
CREATE VIEW v_nextval AS SELECT nextval('seq');
--= r app.v_sequence v p primary reason=sequence
CREATE VIEW v_sequence AS SELECT last_value FROM seq;
--= r app.v_node v p node reason=node_local
CREATE VIEW v_node AS SELECT pid FROM pg_stat_activity;
--= r app.v_backend v p node reason=node_local
CREATE VIEW v_backend AS SELECT pg_backend_pid();
--= r app.v_setting v p read
CREATE VIEW v_setting AS SELECT current_setting('app.tenant') AS a, current_setting('Work_Mem', true) AS b;
--= r app.v_fixed_setting v p node reason=setting
CREATE VIEW v_fixed_setting AS SELECT current_setting('port');
--= r app.v_variable_setting v p node reason=node_local
CREATE VIEW v_variable_setting AS SELECT current_setting(a) FROM plain;
--= r app.v_lock v p primary reason=locking
CREATE VIEW v_lock AS SELECT * FROM plain FOR UPDATE;
--= r app.v_opaque v p doubtful reason=volatile calls read-opaque write-opaque
CREATE VIEW v_opaque AS SELECT o_set_config();
--= r app.v_set_local v p primary reason=state
CREATE VIEW v_set_local AS SELECT set_config('a.b', 'x', true);
--= r app.v_set_passing v p primary reason=state read-opaque read-passing write-opaque write-passing
CREATE VIEW v_set_passing AS SELECT set_config('work_mem', '1MB', false);
--= r app.v_set v p primary reason=state read-opaque write-opaque
CREATE VIEW v_set AS SELECT set_config('a.b', 'x', false);
--= r app.v_aggregate v p doubtful reason=volatile calls
CREATE VIEW v_aggregate AS SELECT bad_sum(id) OVER (ORDER BY id) FROM plain;
--= r app.v_rows v p doubtful reason=volatile calls
CREATE VIEW v_rows AS SELECT x FROM plain, LATERAL volatile_fn() x;
--= r app.v_sample v p read
CREATE VIEW v_sample AS SELECT * FROM plain TABLESAMPLE SYSTEM (10);
--= r app.v_recursive v p read
CREATE RECURSIVE VIEW v_recursive (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM v_recursive WHERE n < 10;
-- What a materialised view stores is read; what REFRESH runs is a write.
--= r app.m_plain m p read write-opaque
CREATE MATERIALIZED VIEW m_plain AS SELECT o_set_config() AS s WITH NO DATA;
-- Writing an automatically updatable view reaches the table below it.
--= r app.v_updatable v p read write-nextval
CREATE VIEW v_updatable AS SELECT * FROM serial;

-- Operators, casts, types.
--= op ###
CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = step);
CREATE OPERATOR ~~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
--= r app.v_operator v p doubtful reason=volatile calls
CREATE VIEW v_operator AS SELECT id ### 1 FROM plain;
CREATE TYPE pt AS (x int, y int);
--= f app.pt_of doubtful
CREATE FUNCTION pt_of(text) RETURNS pt LANGUAGE sql AS 'SELECT ROW(1, 1)::app.pt';
--= type pt
CREATE CAST (text AS pt) WITH FUNCTION pt_of(text);
--= f app.int_of doubtful
CREATE FUNCTION int_of(pt) RETURNS int LANGUAGE sql AS 'SELECT 1';
--= type int4
--= type int
--= type integer
--= attr int_of
CREATE CAST (pt AS int) WITH FUNCTION int_of(pt) AS ASSIGNMENT;
CREATE TYPE src AS (x int);
--= f app.text_of_src doubtful
CREATE FUNCTION text_of_src(src) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
--= attr text_of_src
--= type src
--= type _src
--= type text
CREATE CAST (src AS text) WITH FUNCTION text_of_src(src) AS IMPLICIT;
--= r app.has_src r p doubtful reason=volatile calls
--= type has_src
--= type _has_src
CREATE TABLE has_src (s src[]);
--= f app.gives_src doubtful
CREATE FUNCTION gives_src() RETURNS src LANGUAGE sql STABLE AS 'SELECT ROW(1)::app.src';
-- Naming a domain may run a cast to the type below it.
--= type posint
--= type cardinal_number
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
--= f app.check_fn doubtful
CREATE FUNCTION check_fn(int) RETURNS bool LANGUAGE sql AS 'SELECT true';
--= type checked
--= type _checked
CREATE DOMAIN checked AS int CHECK (check_fn(VALUE));
--= type checked_too
--= type _checked_too
CREATE DOMAIN checked_too AS checked;
--= type holds_checked
--= type _holds_checked
CREATE TYPE holds_checked AS (a checked_too);
--= type numbered
--= type _numbered
CREATE DOMAIN numbered AS bigint DEFAULT nextval('app.seq');
--= r app.with_domain r p read write-nextval
--= type with_domain
--= type _with_domain
CREATE TABLE with_domain (a numbered, b posint);
--= r app.v_domain v p doubtful reason=volatile calls
CREATE VIEW v_domain AS SELECT a::checked_too::int AS c FROM (SELECT 1 AS a) x;
--= f app.row_volatile doubtful
--= attr row_volatile
CREATE FUNCTION row_volatile(plain) RETURNS int LANGUAGE sql AS 'SELECT 1';
--= f app.row_stable read
CREATE FUNCTION row_stable(plain) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
--= f app.row_any doubtful
--= attr row_any
CREATE FUNCTION row_any(record) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';

-- Policies, only where row-level security is on.
--= f app.policy_fn doubtful opaque
CREATE FUNCTION policy_fn() RETURNS bool LANGUAGE sql AS $$ SELECT set_config('a.b', 'x', false) IS NOT NULL $$;
--= r app.guarded r p doubtful reason=volatile calls read-opaque write-opaque
CREATE TABLE guarded (a int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (policy_fn());
--= r app.v_guarded v p doubtful reason=volatile calls read-opaque write-opaque
CREATE VIEW v_guarded AS SELECT * FROM guarded;
--= r app.unguarded r p read
CREATE TABLE unguarded (a int);
CREATE POLICY p ON unguarded USING (policy_fn());
--= r app.guarded_write r p read write-opaque
CREATE TABLE guarded_write (a int);
ALTER TABLE guarded_write ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded_write FOR INSERT WITH CHECK (policy_fn());
--= r app.tenant r p read
CREATE TABLE tenant (id text);
ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenant USING (id = current_setting('app.tenant', true) AND EXISTS (SELECT 1 FROM plain));

-- What a write reaches: triggers, rules, defaults, constraints, indexes, cascades.
--= f app.trg_opaque doubtful opaque
CREATE FUNCTION trg_opaque() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''a.b'', ''x'', false); RETURN NEW; END';
--= f app.trg_fine doubtful
CREATE FUNCTION trg_fine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a = now(); RETURN NEW; END';
--= f app.trg_audit doubtful nextval
CREATE FUNCTION trg_audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO serial DEFAULT VALUES; RETURN NEW; END';
--= r app.triggered r p read write-opaque
CREATE TABLE triggered (id int PRIMARY KEY);
CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION trg_opaque();
--= f app.trg_lock doubtful opaque passing
CREATE FUNCTION trg_lock() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(1); RETURN NEW; END';
--= r app.triggered_lock r p read write-opaque write-passing
CREATE TABLE triggered_lock (id int);
CREATE TRIGGER t BEFORE INSERT ON triggered_lock FOR EACH ROW EXECUTE FUNCTION trg_lock();
--= r app.triggered_both r p read write-opaque
CREATE TABLE triggered_both (id int);
CREATE TRIGGER t BEFORE INSERT ON triggered_both FOR EACH ROW EXECUTE FUNCTION trg_lock();
CREATE TRIGGER u BEFORE INSERT ON triggered_both FOR EACH ROW EXECUTE FUNCTION trg_opaque();
--= r app.triggered_off r p read
CREATE TABLE triggered_off (id int);
CREATE TRIGGER t BEFORE INSERT ON triggered_off FOR EACH ROW EXECUTE FUNCTION trg_opaque();
ALTER TABLE triggered_off DISABLE TRIGGER t;
--= r app.triggered_fine r p read
CREATE TABLE triggered_fine (a timestamptz);
CREATE TRIGGER t BEFORE INSERT ON triggered_fine FOR EACH ROW EXECUTE FUNCTION trg_fine();
--= r app.audited r p read write-nextval
CREATE TABLE audited (id int);
CREATE TRIGGER t AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION trg_audit();
--= r app.trigger_when r p read write-opaque
CREATE TABLE trigger_when (a timestamptz);
CREATE TRIGGER t BEFORE INSERT ON trigger_when FOR EACH ROW WHEN (app.policy_fn()) EXECUTE FUNCTION trg_fine();
--= r app.ruled r p read write-opaque write-nextval
CREATE TABLE ruled (a int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO (INSERT INTO serial DEFAULT VALUES; INSERT INTO triggered VALUES (1));
--= r app.v_instead v p read write-opaque
CREATE VIEW v_instead AS SELECT 1 AS a;
CREATE TRIGGER t INSTEAD OF INSERT ON v_instead FOR EACH ROW EXECUTE FUNCTION trg_opaque();
--= f app.default_fn doubtful opaque
CREATE FUNCTION default_fn() RETURNS text LANGUAGE sql AS 'SELECT set_config(''a.b'', ''x'', false)';
--= r app.defaulted r p read write-opaque
CREATE TABLE defaulted (a text DEFAULT default_fn(), b timestamptz DEFAULT now());
--= f app.generated_fn read opaque
CREATE FUNCTION generated_fn(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT set_config(''a.b'', $1, false)';
--= r app.generated r p read write-opaque
CREATE TABLE generated (a text, b text GENERATED ALWAYS AS (generated_fn(a)) STORED);
--= r app.indexed r p read write-opaque
CREATE TABLE indexed (a text);
CREATE INDEX ON indexed (generated_fn(a));
--= r app.checked_table r p read write-opaque
CREATE TABLE checked_table (a text CHECK (generated_fn(a) IS NOT NULL));
--= r app.referenced r p read write-opaque
CREATE TABLE referenced (id int PRIMARY KEY);
--= r app.referencing r p read write-opaque
CREATE TABLE referencing (id int REFERENCES referenced ON DELETE CASCADE);
CREATE TRIGGER t BEFORE DELETE ON referencing FOR EACH ROW EXECUTE FUNCTION trg_opaque();
--= r app.part_triggered p p read write-opaque
--= r app.part_triggered_1 r p read write-opaque
CREATE TABLE part_triggered (a int) PARTITION BY LIST (a);
CREATE TABLE part_triggered_1 PARTITION OF part_triggered DEFAULT;
CREATE TRIGGER t BEFORE INSERT ON part_triggered_1 FOR EACH ROW EXECUTE FUNCTION trg_opaque();
--= f app.writes_triggered doubtful opaque
CREATE FUNCTION writes_triggered() RETURNS void LANGUAGE sql AS 'DELETE FROM ONLY triggered WHERE id = 1';
--= f app.reads_triggered read
CREATE FUNCTION reads_triggered() RETURNS int LANGUAGE sql STABLE AS 'SELECT plain.id FROM plain, triggered WHERE true';
--= f app.reads_opaque read opaque
CREATE FUNCTION reads_opaque() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 FROM (plain JOIN app.guarded g ON true), v_plain';

-- Extensions: the server's own are trusted, with what is known of some of their functions.
CREATE SCHEMA ext;
CREATE EXTENSION pgcrypto SCHEMA ext;
CREATE EXTENSION dblink SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE EXTENSION isn SCHEMA ext;
CREATE EXTENSION pg_stat_statements SCHEMA ext;
--= f ext.gen_random_uuid read
--= f ext.crypt read
--= f ext.dblink doubtful
--= f ext.dblink_connect doubtful opaque
--= f ext.set_limit doubtful opaque
--= f ext.isn_weak primary opaque
--= f ext.citext_eq read
--= f ext.pg_stat_statements node
--= f ext.pg_stat_statements_reset doubtful
--= r ext.pg_stat_statements v p node reason=node_local calls

-- PostgreSQL's own.
--= r pg_catalog.pg_class r p read
--= r pg_catalog.pg_statistic r p read
--= r pg_catalog.pg_stats v p read
--= r pg_catalog.pg_tables v p read
--= r pg_catalog.pg_roles v p read
--= r pg_catalog.pg_stat_activity v p node reason=node_local
--= r pg_catalog.pg_stat_user_tables v p node reason=node_local
--= r pg_catalog.pg_statio_all_tables v p node reason=node_local
--= r pg_catalog.pg_locks v p node reason=node_local
-- Its rule calls set_config.
--= r pg_catalog.pg_settings v p node reason=node_local write-opaque
--= r pg_catalog.pg_prepared_statements v p node reason=node_local
--= r pg_catalog.pg_cursors v p node reason=node_local
--= r pg_catalog.pg_replication_slots v p node reason=node_local
--= r pg_catalog.pg_sequences v p primary reason=sequence
--= r information_schema.tables v p read
--= r information_schema.columns v p read
--= r information_schema.sequences v p read
--= f information_schema._pg_truetypid read
