// Knex: its migrations, queries and transactions, on its pool of ten.
"use strict";
const drive = require("../drive");
const knex = require("knex");

const migrations = {
  "0001_initial": {
    async up(db) {
      await db.schema.createTable("authors", (t) => {
        t.increments("id");
        t.string("name", 100).notNullable().unique();
      });
      await db.schema.createTable("books", (t) => {
        t.increments("id");
        t.integer("author_id").notNullable().references("authors.id").onDelete("CASCADE").index();
        t.text("title").notNullable();
      });
    },
    async down(db) {
      await db.schema.dropTable("books");
      await db.schema.dropTable("authors");
    },
  },
  "0002_visits": {
    async up(db) {
      await db.schema.alterTable("authors", (t) => t.integer("visits").notNullable().defaultTo(0));
      await db("authors").insert({ name: "greeted", visits: 1 });
      await db("authors").where({ visits: 1 }).delete();
    },
    down: (db) => db.schema.alterTable("authors", (t) => t.dropColumn("visits")),
  },
};

const db = knex({
  client: "pg",
  connection: process.env.DATABASE_URL,
  pool: { min: 0, max: drive.WORKERS },
  migrations: {
    migrationSource: {
      getMigrations: async () => Object.keys(migrations),
      getMigrationName: (name) => name,
      getMigration: async (name) => migrations[name],
    },
  },
});

async function read(q, n) {
  const author = await q("authors").where({ name: `author ${n}` }).first();
  const books = await q("books").where({ author_id: author.id });
  if (books.length < drive.BOOKS) throw new Error("too few books");
}

drive.run({
  name: () => `Knex ${drive.version("knex")}`,
  up: () => db.migrate.latest(),
  down: () => db.migrate.rollback(undefined, true),
  tables: () => db("pg_tables").where({ schemaname: "public" }).pluck("tablename"),
  async crud() {
    for (let a = 1; a <= drive.AUTHORS; a++) {
      const [{ id }] = await db("authors").insert({ name: `author ${a}` }).returning("id");
      await db("books").insert(Array.from({ length: drive.BOOKS }, (_, b) => ({ author_id: id, title: `book ${b}` })));
    }
    await db("authors").insert({ name: "extra" });
    await db("authors").where({ name: "extra" }).update({ visits: 3 });
    drive.check("updated", (await db("authors").where({ name: "extra" }).first()).visits, 3);
    const of3 = await db("books").join("authors", "authors.id", "books.author_id").where({ name: "author 3" }).count("* as n");
    drive.check("joined", Number(of3[0].n), drive.BOOKS);
    await db("authors").where({ name: "extra" }).delete();
    drive.check("deleted", await db("authors").where({ name: "extra" }), []);
  },
  async nested() {
    const visits = async (q) => (await q("authors").where({ name: "author 1" }).first()).visits;
    await db.transaction(async (outer) => {
      await outer("authors").where({ name: "author 1" }).update({ visits: 10 });
      const failed = await outer.transaction(async (inner) => {
        await inner("authors").where({ name: "author 1" }).update({ visits: 11 });
        await inner("authors").insert({ name: "author 2" }); // there is one
      }).catch((error) => error.code);
      drive.check("the inner transaction", failed, "23505");
      drive.check("behind the inner transaction", await visits(outer), 10);
    });
    drive.check("behind the outer transaction", await visits(db), 10);
  },
  plain: (n) => read(db, n),
  block: (n) => db.transaction((tx) => read(tx, n)),
  write: (n, title) => db.transaction(async (tx) => {
    const author = await tx("authors").where({ name: `author ${n}` }).first();
    await tx("authors").where({ id: author.id }).increment("visits", 1);
    await tx("books").insert({ author_id: author.id, title });
  }),
  end: () => db.destroy(),
});
