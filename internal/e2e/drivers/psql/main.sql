-- What a person with psql relies on; run twice, the outputs must be equal.
\set ON_ERROR_STOP off
\set VERBOSITY verbose
\pset pager off
SET client_min_messages = warning;
DROP TABLE IF EXISTS psql_t;
CREATE TABLE psql_t (id int PRIMARY KEY, v text);
\d psql_t
INSERT INTO psql_t SELECT i, 'row ' || i FROM generate_series(1, 10) i;
SELECT count(*) AS n FROM psql_t \gset
\echo :n
SELECT * FROM psql_t ORDER BY id LIMIT 2 \gx
SELECT id, v FROM psql_t \gdesc
SELECT format('SELECT %s', i) FROM generate_series(1, 3) i \gexec
\copy psql_t FROM STDIN
11	copied
12	copied too
\.
\copy (SELECT * FROM psql_t WHERE id > 10 ORDER BY id) TO STDOUT
COPY psql_t TO STDOUT WITH (FORMAT csv);
SELECT 1/0;
\errverbose
BEGIN;
INSERT INTO psql_t VALUES (20, 'x');
SELECT 1/0;
SELECT 1;
COMMIT;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO psql_t VALUES (21, 'y');
SELECT 1/0;
INSERT INTO psql_t VALUES (22, 'z');
COMMIT;
SELECT id FROM psql_t WHERE id >= 20 ORDER BY id;
\set AUTOCOMMIT off
INSERT INTO psql_t VALUES (30, 'a');
ROLLBACK;
\set AUTOCOMMIT on
\set FETCH_COUNT 3
SELECT id FROM psql_t ORDER BY id;
\unset FETCH_COUNT
SELECT 1 \; SELECT 2 \; SELECT count(*) FROM psql_t;
PREPARE p (int) AS SELECT v FROM psql_t WHERE id = $1;
EXECUTE p (3);
LISTEN psql_ch;
NOTIFY psql_ch;
UNLISTEN psql_ch;
DO $$ BEGIN RAISE WARNING 'careful'; END $$;
\encoding
\encoding LATIN1
\encoding UTF8
\df node_port
\dt psql_t
\dn public
\l appdb
\du app
SHOW transaction_read_only;
DROP TABLE psql_t;
