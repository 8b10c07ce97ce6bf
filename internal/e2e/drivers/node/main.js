// What a program that uses node-postgres relies on.
"use strict";

const assert = require("node:assert/strict");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client, Pool, types } = require("pg");
const Cursor = require("pg-cursor");
const copy = require("pg-copy-streams");

const env = process.env;
const ok = (what) => console.log("ok " + what);
const config = (more = {}) => ({
  host: env.PGHOST, port: Number(env.PGPORT), user: env.PGUSER, password: env.PGPASSWORD, database: env.PGDATABASE, ...more,
});

// sqlstate runs f and returns the SQLSTATE that it failed with.
async function sqlstate(f) {
  try {
    await f();
  } catch (e) {
    if (e.code === undefined) throw e;
    return e.code;
  }
  throw new Error("no error came");
}

async function connect(more) {
  const c = new Client(config(more));
  await c.connect();
  return c;
}

async function typesAndPrepared(c) {
  await c.query("DROP TABLE IF EXISTS node_t; CREATE TABLE node_t (id int PRIMARY KEY, v text)");
  const r = await c.query("SELECT $1::int AS a, $2::text AS b, $3::bool AS c, $4::jsonb AS d, $5::bytea AS e, $6::text AS f, $7::int[] AS g",
    [42, "žluť 🐘", true, { a: [1] }, Buffer.from([0, 255]), null, [1, 2]]);
  assert.deepEqual(r.rows[0], { a: 42, b: "žluť 🐘", c: true, d: { a: [1] }, e: Buffer.from([0, 255]), f: null, g: [1, 2] });
  ok("types");
  for (let i = 0; i < 30; i++) {
    await c.query({ name: "ins", text: "INSERT INTO node_t VALUES ($1, $2)", values: [i, "v" + i] });
    const s = await c.query({ name: "sel", text: "SELECT v FROM node_t WHERE id = $1", values: [i] });
    assert.equal(s.rows[0].v, "v" + i);
  }
  const b = await c.query({ name: "bin", text: "SELECT $1::int AS n", values: [7], binary: true });
  assert.equal(b.rows[0].n, 7);
  ok("prepared statements");
}

async function batches(c) {
  // Queued at once; the driver sends each when the one before is done.
  const all = await Promise.all(Array.from({ length: 200 }, (_, i) => c.query("SELECT $1::int AS n", [i])));
  assert.deepEqual(all.map((r) => r.rows[0].n), Array.from({ length: 200 }, (_, i) => i));
  const several = await c.query("SELECT 1 AS a; INSERT INTO node_t VALUES (100, 'm'); SELECT count(*)::int AS n FROM node_t");
  assert.deepEqual(several.map((r) => r.command), ["SELECT", "INSERT", "SELECT"]);
  assert.equal(several[2].rows[0].n, 31);
  const settled = await Promise.allSettled([c.query("INSERT INTO node_t VALUES (101, 'x')"), c.query("SELECT 1/0"), c.query("SELECT 5 AS n")]);
  assert.deepEqual(settled.map((s) => s.status), ["fulfilled", "rejected", "fulfilled"]);
  assert.equal(settled[1].reason.code, "22012");
  const pool = new Pool(config({ max: 4 }));
  const sums = await Promise.all(Array.from({ length: 100 }, (_, i) => pool.query("SELECT count(*)::int AS n FROM node_t WHERE id >= $1", [i >= 0 ? 0 : 1])));
  assert.ok(sums.every((r) => r.rows[0].n === 32));
  await pool.end();
  ok("batches");
}

async function cursors(c) {
  await c.query("BEGIN");
  const cur = c.query(new Cursor("SELECT i FROM generate_series(1, 1000) i"));
  let n = 0;
  for (let rows = await cur.read(100); rows.length > 0; rows = await cur.read(100)) n += rows.length;
  assert.equal(n, 1000);
  await cur.close();
  const early = c.query(new Cursor("SELECT i FROM generate_series(1, 1000) i"));
  assert.equal((await early.read(3)).length, 3);
  await early.close();
  await c.query("COMMIT");
  const outside = c.query(new Cursor("SELECT id FROM node_t ORDER BY id"));
  assert.equal((await outside.read(5)).length, 5);
  assert.equal((await outside.read(5)).length, 5);
  await outside.close();
  assert.equal((await c.query("SELECT 1 AS n")).rows[0].n, 1);
  ok("cursors");
}

async function copies(c) {
  const lines = Array.from({ length: 5000 }, (_, i) => `${1000 + i}\tcopied ${i}\n`);
  await pipeline(Readable.from(lines), c.query(copy.from("COPY node_t FROM STDIN")));
  let text = "";
  for await (const chunk of c.query(copy.to("COPY (SELECT * FROM node_t WHERE id >= 1000 ORDER BY id) TO STDOUT"))) text += chunk;
  assert.equal(text, lines.join(""));
  assert.equal(await sqlstate(() => pipeline(Readable.from(["x\ty\n"]), c.query(copy.from("COPY node_t FROM STDIN")))), "22P02");
  assert.equal((await c.query("SELECT count(*)::int AS n FROM node_t")).rows[0].n, 5032);
  ok("COPY both ways");
}

async function listen(c) {
  const l = await connect();
  const heard = new Promise((resolve) => l.on("notification", (m) => resolve(m.payload)));
  await l.query("LISTEN node_ch");
  await c.query("NOTIFY node_ch, 'hello'");
  assert.equal(await heard, "hello");
  assert.equal((await l.query("SELECT 1 AS n")).rows[0].n, 1);
  await l.end();
  ok("LISTEN");
}

async function cancel(c) {
  // The driver's own cancel opens another connection with the key that it got at login.
  const query = c.query("SELECT pg_sleep(60)");
  const again = setInterval(() => {
    const k = new Client(config());
    k.connection.on("connect", () => k.connection.cancel(c.processID, c.secretKey));
    k.connection.on("error", () => {});
    k.connection.connect(Number(env.PGPORT), env.PGHOST);
  }, 200);
  assert.equal(await sqlstate(() => query), "57014");
  clearInterval(again);
  await c.query("SELECT 1").catch((e) => assert.equal(e.code, "57014")); // one more was on its way
  assert.equal((await c.query("SELECT 1 AS n")).rows[0].n, 1);
  const t = await connect({ statement_timeout: 200 });
  assert.equal(await sqlstate(() => t.query("SELECT pg_sleep(60)")), "57014");
  await t.end();
  ok("cancel");
}

async function large(c) {
  const text = "0123456789abcdef".repeat(1 << 20);
  await c.query("INSERT INTO node_t VALUES (9000, $1)", [text]);
  assert.ok((await c.query("SELECT v FROM node_t WHERE id = 9000")).rows[0].v === text);
  assert.equal((await c.query("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")).rows.length, 20000);
  ok("large rows");
}

async function recovery(c) {
  assert.equal(await sqlstate(() => c.query("INSERT INTO node_t VALUES (1, 'again')")), "23505");
  assert.equal(await sqlstate(() => c.query("SELECT * FROM nope")), "42P01");
  assert.equal(await sqlstate(() => c.query("SELECT $1::int", ["abc"])), "22P02");
  await c.query("BEGIN");
  await c.query("SAVEPOINT s");
  assert.equal(await sqlstate(() => c.query("SELECT 1/0")), "22012");
  assert.equal(await sqlstate(() => c.query("SELECT 1")), "25P02");
  await c.query("ROLLBACK TO s");
  await c.query("INSERT INTO node_t VALUES (9100, 'x')");
  await c.query("COMMIT");
  assert.equal((await c.query("SELECT count(*)::int AS n FROM node_t WHERE id = 9100")).rows[0].n, 1);
  ok("going on after errors");
}

async function hosts() {
  // The driver knows one host; a standby listener is told apart as an application would.
  const s = await connect({ port: Number(env.STANDBY_PORT) });
  assert.equal((await s.query("SHOW transaction_read_only")).rows[0].transaction_read_only, "on");
  assert.equal(await sqlstate(() => s.query("INSERT INTO node_t VALUES (9200, 'x')")), "25006");
  await s.end();
  const dead = new Client(config({ port: Number(env.DEAD_PORT) }));
  await assert.rejects(dead.connect());
  ok("standby port");
}

async function main() {
  types.setTypeParser(20, Number);
  const c = await connect();
  for (const step of [typesAndPrepared, batches, cursors, copies, listen, cancel, large, recovery]) await step(c);
  await c.end();
  await hosts();
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
