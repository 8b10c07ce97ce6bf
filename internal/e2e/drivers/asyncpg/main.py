"""A self-checking program for asyncpg; see ../README.md."""

import asyncio
import os

import asyncpg


def ok(what):
    print("ok", what, flush=True)


def check(want, got):
    if want != got:
        raise AssertionError(f"wanted {want!r}, got {got!r}")


async def fails(state, awaitable):
    """The awaitable must fail with that SQLSTATE."""
    try:
        await awaitable
    except asyncpg.PostgresError as e:
        check(state, e.sqlstate)
    else:
        raise AssertionError(f"no error came, wanted {state}")


async def connect(**more):
    return await asyncpg.connect(ssl=False, **more)


async def prepared(c):
    await c.execute("DROP TABLE IF EXISTS apg_t; CREATE TABLE apg_t (id int PRIMARY KEY, v text, j jsonb, a text[])")
    for i in range(30):
        await c.execute("INSERT INTO apg_t VALUES ($1, $2, $3, $4)", i, f"it's {i}", '{"n": %d}' % i, [str(i), "x"])
        row = await c.fetchrow("SELECT v, j, a FROM apg_t WHERE id = $1", i)
        check((f"it's {i}", '{"n": %d}' % i, [str(i), "x"]), tuple(row))
    await c.executemany("INSERT INTO apg_t (id, v) VALUES ($1, $2)", [(1000 + i, str(i)) for i in range(500)])
    check(500, await c.fetchval("SELECT count(*) FROM apg_t WHERE id >= 1000"))
    stmt = await c.prepare("SELECT id FROM apg_t WHERE id < $1 ORDER BY id")
    check([r["id"] for r in await stmt.fetch(5)], [0, 1, 2, 3, 4])
    await c.execute("ALTER TABLE apg_t ADD COLUMN more int DEFAULT 7")
    check(7, (await c.fetchrow("SELECT * FROM apg_t WHERE id = $1", 1))["more"])
    await fails("23505", c.execute("INSERT INTO apg_t (id) VALUES ($1)", 1))
    await fails("42P01", c.fetch("SELECT * FROM nope"))
    ok("prepared statements and types")


async def transactions(c):
    for isolation in ("read_committed", "repeatable_read", "serializable"):
        async with c.transaction(isolation=isolation):
            await c.execute("UPDATE apg_t SET v = 'one' WHERE id = 1")
            try:
                async with c.transaction():
                    await c.execute("UPDATE apg_t SET v = 'two' WHERE id = 1")
                    await c.fetch("SELECT 1/0")
            except asyncpg.DivisionByZeroError:
                pass
            check("one", await c.fetchval("SELECT v FROM apg_t WHERE id = 1"))
    async with c.transaction(readonly=True):
        check("one", await c.fetchval("SELECT v FROM apg_t WHERE id = 1"))
        await fails("25006", c.execute("DELETE FROM apg_t"))
    async with c.transaction():
        got = [r["g"] async for r in c.cursor("SELECT g FROM generate_series(1, 250) g", prefetch=20)]
        check(list(range(1, 251)), got)
        cur = await c.cursor("SELECT g FROM generate_series(1, 10) g")
        await cur.forward(4)
        check([5, 6], [r["g"] for r in await cur.fetch(2)])
    ok("transactions and cursors")


async def copies(c):
    await c.execute("DROP TABLE IF EXISTS apg_copy; CREATE TABLE apg_copy (id int, v text)")
    rows = [(i, f"value {i}") for i in range(20000)]
    check("COPY 20000", await c.copy_records_to_table("apg_copy", records=rows))
    out = bytearray()

    async def sink(data):
        out.extend(data)

    check("COPY 20000", await c.copy_from_query("SELECT * FROM apg_copy ORDER BY id", output=sink, format="csv"))
    check(20000, out.count(b"\n"))

    async def broken():
        yield b"1,x\n"
        raise KeyError("mine")

    try:
        await c.copy_to_table("apg_copy", source=broken(), format="csv")
    except KeyError:
        pass
    check(20000, await c.fetchval("SELECT count(*) FROM apg_copy"))
    ok("COPY both ways")


async def listen(a, b):
    heard = asyncio.get_running_loop().create_future()

    def hear(_, pid, channel, payload):
        heard.set_result((pid, channel, payload))

    await a.add_listener("apg_channel", hear)
    await b.execute("NOTIFY apg_channel, 'hello'")
    check((b.get_server_pid(), "apg_channel", "hello"), await asyncio.wait_for(heard, 10))
    await a.remove_listener("apg_channel", hear)
    ok("LISTEN")


async def cancels(c, watch):
    try:
        await c.execute("SELECT pg_sleep(30)", timeout=0.1)
    except asyncio.TimeoutError:
        pass
    check(1, await c.fetchval("SELECT 1"))
    task = asyncio.create_task(c.fetch("SELECT pg_advisory_xact_lock(7103), pg_sleep(30)"))
    while not await watch.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7103"):
        pass  # until it runs
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    check(2, await c.fetchval("SELECT 2"))
    ok("cancel")


async def pools():
    """More tasks than connections; what a connection is left with goes when its pool takes it back."""
    async with asyncpg.create_pool(ssl=False, min_size=2, max_size=4) as pool:
        await pool.execute("DROP TABLE IF EXISTS apg_n; CREATE TABLE apg_n (n int); INSERT INTO apg_n VALUES (0)")

        async def work(i):
            async with pool.acquire() as c:
                check("0", await c.fetchval("SHOW lock_timeout"))
                await c.execute(f"SET lock_timeout = {i + 1}000")
                await c.fetchval("SELECT pg_advisory_lock_shared(7)")
                async with c.transaction():
                    await c.execute("UPDATE apg_n SET n = n + 1")
                check(f"{i + 1}s", await c.fetchval("SHOW lock_timeout"))

        await asyncio.gather(*(work(i) for i in range(40)))
        check(40, await pool.fetchval("SELECT n FROM apg_n"))
        check(0, await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"))
    ok("pools")


async def large(c):
    v = "x" * 3_000_000
    check(v, await c.fetchval("SELECT $1::text", v))
    ok("large values")


async def hosts():
    ports = [os.environ["STANDBY_PORT"], os.environ["PGPORT"]]
    dsn = "postgresql://{0}:{1},{0}:{2}/".format(os.environ["PGHOST"], *ports)
    for want, off in (("primary", "off"), ("standby", "on"), ("prefer-standby", "on")):
        c = await asyncpg.connect(dsn, ssl=False, target_session_attrs=want)
        check(off, await c.fetchval("SHOW transaction_read_only"))
        await c.close()
    ok("several hosts")


async def main():
    a, b = await connect(), await connect(statement_cache_size=0)
    await prepared(a)
    await prepared(b)
    await transactions(a)
    await copies(a)
    await listen(a, b)
    await cancels(a, b)
    await large(a)
    await a.close()
    await b.close()
    await pools()
    if hasattr(asyncpg, "TargetServerAttributeNotMatched"):
        await hosts()
    else:
        ok("several hosts, which this asyncpg cannot tell apart")


asyncio.run(main())
