"""What a program that uses psycopg 3 relies on."""

import datetime
import decimal
import os
import threading
import time
import uuid

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

CONNINFO = "host={PGHOST} port={PGPORT} user={PGUSER} dbname={PGDATABASE}".format(**os.environ)


def ok(what):
    print("ok", what, flush=True)


def connect(conninfo=CONNINFO, **kw):
    return psycopg.connect(conninfo, password=os.environ["PGPASSWORD"], **kw)


def types(conn):
    values = (
        42, 2**40, "žluť 🐘", None, True, decimal.Decimal("1.50"), b"\x00\xff",
        datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        datetime.date(2020, 2, 29), uuid.UUID(int=1), [1, 2, 3], Jsonb({"a": [1]}),
    )
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            cur.execute(
                "SELECT %s::int, %s::bigint, %s::text, %s::text, %s::bool, %s::numeric, %s::bytea,"
                " %s::timestamptz, %s::date, %s::uuid, %s::int[], %s::jsonb", values)
            row = cur.fetchone()
        assert row[:-1] == values[:-1], row
        assert row[-1] == {"a": [1]}, row
    ok("types")


def prepared(conn):
    with conn.cursor() as cur:
        cur.execute("DROP TABLE IF EXISTS psycopg_t")
        cur.execute("CREATE TABLE psycopg_t (id int PRIMARY KEY, v text)")
        for i in range(30):  # prepared on the server after five
            cur.execute("INSERT INTO psycopg_t VALUES (%s, %s)", (i, f"v{i}"))
            cur.execute("SELECT v FROM psycopg_t WHERE id = %s", (i,))
            assert cur.fetchone() == (f"v{i}",)
        for i in range(30):
            cur.execute("SELECT count(*) FROM psycopg_t WHERE id < %s", (i,), prepare=True)
            assert cur.fetchone() == (i,)
        for n in range(150):  # more statements than the driver keeps
            cur.execute(f"SELECT {n} + %s", (1,), prepare=True)
            assert cur.fetchone() == (n + 1,)
        cur.execute("ALTER TABLE psycopg_t ADD COLUMN more int")
        cur.execute("SELECT v FROM psycopg_t WHERE id = %s", (3,))
        assert cur.fetchone() == ("v3",)
    ok("prepared statements beyond the threshold")


def batches(conn):
    with conn.cursor() as cur:
        cur.executemany("INSERT INTO psycopg_t VALUES (%s, %s)", [(i, "many") for i in range(100, 200)])
        assert cur.rowcount == 100
        cur.executemany("INSERT INTO psycopg_t VALUES (%s, 'r') RETURNING id", [(i,) for i in range(200, 210)], returning=True)
        got = []
        while True:
            got.append(cur.fetchone()[0])
            if not cur.nextset():
                break
        assert got == list(range(200, 210)), got
    with conn.pipeline() as p:
        cur1, cur2 = conn.cursor(), conn.cursor()
        cur1.execute("INSERT INTO psycopg_t VALUES (300, 'p') RETURNING id")
        cur2.execute("SELECT count(*) FROM psycopg_t WHERE id = %s", (300,))
        p.sync()
        assert cur1.fetchone() == (300,) and cur2.fetchone() == (1,)
    try:
        with conn.pipeline() as p:
            conn.execute("INSERT INTO psycopg_t VALUES (301, 'p')")
            conn.execute("SELECT 1/0")
            conn.execute("INSERT INTO psycopg_t VALUES (302, 'p')")
            p.sync()
        raise AssertionError("no error came")
    except (errors.DivisionByZero, psycopg.errors.PipelineAborted):
        pass
    assert conn.execute("SELECT count(*) FROM psycopg_t WHERE id IN (301, 302)").fetchone() == (0,)
    with conn.pipeline():
        curs = [conn.execute("SELECT %s::int", (i,)) for i in range(500)]
        assert [c.fetchone()[0] for c in curs] == list(range(500))
    ok("batches and pipelines")


def copies(conn):
    with conn.cursor() as cur:
        with cur.copy("COPY psycopg_t (id, v) FROM STDIN") as copy:
            for i in range(1000, 3000):
                copy.write_row((i, "x" * 100))
        with cur.copy("COPY (SELECT id FROM psycopg_t WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int4"])
            assert [r[0] for r in copy.rows()] == list(range(1000, 3000))
        with cur.copy("COPY psycopg_t (id, v) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((5000, "binary"))
        try:
            with cur.copy("COPY psycopg_t (id, v) FROM STDIN") as copy:
                copy.write_row((6000, "never"))
                raise ZeroDivisionError
        except errors.QueryCanceled:
            pass
        try:
            with cur.copy("COPY psycopg_t (id, v) FROM STDIN") as copy:
                copy.write("not a number\tx\n")
            raise AssertionError("bad data was taken")
        except errors.InvalidTextRepresentation:
            pass
        cur.execute("SELECT count(*) FROM psycopg_t WHERE id IN (5000, 6000)")
        assert cur.fetchone() == (1,)
    ok("COPY both ways")


def listen(conn):
    with connect(autocommit=True) as other:
        other.execute("LISTEN psycopg_ch")
        conn.execute("NOTIFY psycopg_ch, 'one'")
        conn.execute("SELECT pg_notify('psycopg_ch', 'two')")
        got = []
        for n in other.notifies():
            got.append(n.payload)
            if len(got) == 2:
                break
        assert got == ["one", "two"], got
        assert other.execute("SELECT 1").fetchone() == (1,)
    ok("LISTEN")


def cancel(conn):
    done = threading.Event()

    def again():
        while not done.wait(0.2):
            conn.cancel()

    t = threading.Thread(target=again)
    t.start()
    began = time.monotonic()
    try:
        conn.execute("SELECT pg_sleep(60)")
        raise AssertionError("it was not cancelled")
    except errors.QueryCanceled:
        pass
    finally:
        done.set()
        t.join()
    assert time.monotonic() - began < 30
    assert conn.execute("SELECT 'alive'").fetchone() == ("alive",)
    ok("cancel")


def large(conn):
    text = "0123456789abcdef" * (1 << 20)  # 16 MiB
    conn.execute("INSERT INTO psycopg_t VALUES (9000, %s)", (text,))
    assert conn.execute("SELECT v FROM psycopg_t WHERE id = 9000").fetchone() == (text,)
    with conn.transaction(), conn.cursor(name="big") as cur:
        cur.itersize = 500
        cur.execute("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
        assert sum(1 for _ in cur) == 20000
    with conn.cursor() as cur:
        assert sum(1 for _ in cur.stream("SELECT i FROM generate_series(1, 20000) i")) == 20000
    ok("large rows")


def recovery(conn):
    for bad, error in (("SELECT 1/0", errors.DivisionByZero), ("SELEC", errors.SyntaxError), ("SELECT * FROM nope", errors.UndefinedTable)):
        try:
            conn.execute(bad)
            raise AssertionError("no error came")
        except error as e:
            assert e.diag.severity == "ERROR"
        assert conn.execute("SELECT 1").fetchone() == (1,)
    with conn.transaction():
        conn.execute("INSERT INTO psycopg_t VALUES (9100, 'outer')")
        try:
            with conn.transaction():
                conn.execute("INSERT INTO psycopg_t VALUES (9101, 'inner')")
                conn.execute("INSERT INTO psycopg_t VALUES (9100, 'again')")
        except errors.UniqueViolation:
            pass
        conn.execute("INSERT INTO psycopg_t VALUES (9102, 'outer')")
    ids = [r[0] for r in conn.execute("SELECT id FROM psycopg_t WHERE id BETWEEN 9100 AND 9102 ORDER BY id")]
    assert ids == [9100, 9102], ids
    with connect() as c:
        c.read_only = True
        assert c.execute("SELECT count(*) > 0 FROM psycopg_t").fetchone() == (True,)
        try:
            c.execute("DELETE FROM psycopg_t")
            raise AssertionError("a read only transaction wrote")
        except errors.ReadOnlySqlTransaction:
            c.rollback()
        c.read_only = False
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.execute("DELETE FROM psycopg_t WHERE id = 9102")
        c.commit()
    ok("going on after errors")


def hosts():
    e = os.environ
    template = "host={h},{h} port={{}},{{}} user={u} dbname={d} connect_timeout=10 target_session_attrs={{}}".format(h=e["PGHOST"], u=e["PGUSER"], d=e["PGDATABASE"])
    for first, second, attrs, read_only in (
        (e["DEAD_PORT"], e["PGPORT"], "any", "off"),
        (e["STANDBY_PORT"], e["PGPORT"], "read-write", "off"),
        (e["STANDBY_PORT"], e["PGPORT"], "primary", "off"),
        (e["PGPORT"], e["STANDBY_PORT"], "standby", "on"),
        (e["PGPORT"], e["STANDBY_PORT"], "read-only", "on"),
        (e["PGPORT"], e["STANDBY_PORT"], "prefer-standby", "on"),
    ):
        with connect(template.format(first, second, attrs)) as c:
            assert c.execute("SHOW transaction_read_only").fetchone() == (read_only,), (attrs, read_only)
    ok("several hosts and target_session_attrs")


def main():
    with connect(autocommit=True) as conn:
        types(conn)
        prepared(conn)
        batches(conn)
        copies(conn)
        listen(conn)
        cancel(conn)
        large(conn)
        recovery(conn)
    hosts()


main()
