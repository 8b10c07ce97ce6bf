// Walks a tool's program through the steps of README.md. A tool is an object with async functions as in
// python/drive.py: name, up, down, tables, crud, nested, plain, block, write, code, and end.
"use strict";
const readline = require("node:readline");
const { setTimeout: pause } = require("node:timers/promises");

const AUTHORS = 10, BOOKS = 5, WORKERS = 10, REQUESTS = 30;
const PAUSE = 5; // a worker's think time while the primary dies, in ms

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function report(step, facts = {}) {
  process.stdout.write(JSON.stringify({ step, ...facts }) + "\n");
}

async function wait() {
  const { value, done } = await lines.next();
  if (done) throw new Error("the driver is gone");
  return value.trim();
}

function check(what, got, want) {
  const [a, b] = [got, want].map((v) => JSON.stringify(v) ?? "undefined");
  if (a !== b) throw new Error(`${what}: got ${a}, not ${b}`);
}

const workers = (work) => Promise.all(Array.from({ length: WORKERS }, (_, w) => work(w)));

async function reading(tool, step) {
  await workers(async (w) => {
    for (let i = 0; i < REQUESTS; i++) {
      if ((i + w) % 10 === 0) await tool.write(w + 1, `${step} ${w} ${i}`);
      else await tool[step](((w + i) % AUTHORS) + 1);
    }
  });
  report(step, { requests: WORKERS * REQUESTS });
}

// The first SQLSTATE among an error and what caused it.
function codeOf(error) {
  for (let e = error; e; e = e.cause ?? e.driverError ?? e.original) {
    if (/^[0-9A-Z]{5}$/.test(e.code ?? "")) return e.code;
  }
  return error.code ?? error.name;
}

async function failover(tool) {
  const seen = { requests: 0, written: 0, gave_up: 0, errors: {} };
  let over = false;
  async function request(w, i) {
    const n = ((w + i) % AUTHORS) + 1;
    if (i % 3 === 0) return tool.plain(n);
    if (i % 3 === 1) return tool.block(n);
    await tool.write(n, `failover ${w} ${i}`);
    seen.written++;
  }
  async function attempt(w, i) {
    for (const last of [false, true]) {
      try {
        return await request(w, i);
      } catch (error) {
        const code = codeOf(error);
        console.error(`worker ${w}, request ${i}: ${code} ${error.message}`);
        if (last) seen.gave_up++;
        else seen.errors[code] = (seen.errors[code] ?? 0) + 1;
      }
    }
  }
  let warm = 0, warmed;
  const allWarm = new Promise((resolve) => { warmed = resolve; });
  const all = workers(async (w) => {
    let i = 0;
    for (let more = 10; more > 0; over && more--) {
      await attempt(w, i++);
      if (i === 6 && ++warm === WORKERS) warmed();
      await pause(PAUSE);
    }
    seen.requests += i;
  });
  await allWarm;
  report("working");
  await wait();
  over = true;
  await all;
  report("failover", seen);
}

async function main(tool) {
  const mine = async () => (await tool.tables()).filter((t) => t === "authors" || t === "books").sort();
  report("hello", { tool: tool.name() });
  await wait();
  for (const [migrate, want] of [[tool.up, ["authors", "books"]], [tool.down, []], [tool.up, ["authors", "books"]]]) {
    await migrate();
    check("tables", await mine(), want);
  }
  report("migrate");
  await wait();
  await tool.crud();
  report("crud");
  await wait();
  await tool.nested();
  report("nested");
  let step;
  while ((step = await wait()) === "plain" || step === "block") await reading(tool, step);
  await failover(tool);
  await wait();
  await tool.down();
  check("tables", await mine(), []);
  report("down");
  await tool.end();
  process.exit(0);
}

function run(tool) {
  main(tool).catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

// The version of an installed package. Not every package lets its package.json be required.
function version(name) {
  const path = require("node:path");
  const at = (process.env.NODE_PATH ?? "").split(path.delimiter)[0];
  return JSON.parse(require("node:fs").readFileSync(path.join(at, name, "package.json"), "utf8")).version;
}

module.exports = { run, check, version, AUTHORS, BOOKS, WORKERS };
