// Drizzle with node-postgres: its migrator, queries and transactions, on a pool of ten. It has no migrations down;
// what a new migration would do is done by hand.
"use strict";
const path = require("node:path");
const drive = require("../drive");
const { count, eq, sql } = require("drizzle-orm");
const { relations } = require("drizzle-orm");
const { drizzle } = require("drizzle-orm/node-postgres");
const { migrate } = require("drizzle-orm/node-postgres/migrator");
const { integer, pgTable, serial, text, varchar } = require("drizzle-orm/pg-core");
const { Pool } = require("pg");

const authors = pgTable("authors", {
  id: serial("id").primaryKey(),
  name: varchar("name", { length: 100 }).notNull().unique(),
  visits: integer("visits").notNull().default(0),
});
const books = pgTable("books", {
  id: serial("id").primaryKey(),
  authorId: integer("author_id").notNull().references(() => authors.id, { onDelete: "cascade" }),
  title: text("title").notNull(),
});
const authorsRelations = relations(authors, ({ many }) => ({ books: many(books) }));
const booksRelations = relations(books, ({ one }) => ({ author: one(authors, { fields: [books.authorId], references: [authors.id] }) }));

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: drive.WORKERS });
const db = drizzle(pool, { schema: { authors, books, authorsRelations, booksRelations } });

const named = async (q, name) => (await q.select().from(authors).where(eq(authors.name, name)))[0];

async function read(q, n) {
  const author = await named(q, `author ${n}`);
  const of = await q.query.books.findMany({ where: eq(books.authorId, author.id), with: { author: true } });
  if (of.length < drive.BOOKS) throw new Error("too few books");
}

drive.run({
  name: () => `Drizzle ${drive.version("drizzle-orm")}`,
  up: () => migrate(db, { migrationsFolder: path.join(__dirname, "migrations") }),
  down: () => db.transaction(async (tx) => {
    await tx.execute(sql`DROP TABLE books`);
    await tx.execute(sql`DROP TABLE authors`);
    await tx.execute(sql`DROP SCHEMA drizzle CASCADE`);
  }),
  tables: async () => (await db.execute(sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)).rows.map((r) => r.tablename),
  async crud() {
    for (let a = 1; a <= drive.AUTHORS; a++) {
      const [author] = await db.insert(authors).values({ name: `author ${a}` }).returning();
      await db.insert(books).values(Array.from({ length: drive.BOOKS }, (_, b) => ({ authorId: author.id, title: `book ${b}` })));
    }
    await db.insert(authors).values({ name: "extra" });
    await db.update(authors).set({ visits: 3 }).where(eq(authors.name, "extra"));
    drive.check("updated", (await named(db, "extra")).visits, 3);
    const of3 = await db.select({ n: count() }).from(books).innerJoin(authors, eq(authors.id, books.authorId)).where(eq(authors.name, "author 3"));
    drive.check("joined", of3[0].n, drive.BOOKS);
    await db.delete(authors).where(eq(authors.name, "extra"));
    drive.check("deleted", await named(db, "extra"), undefined);
  },
  async nested() {
    await db.transaction(async (outer) => {
      await outer.update(authors).set({ visits: 10 }).where(eq(authors.name, "author 1"));
      const failed = await outer.transaction(async (inner) => {
        await inner.update(authors).set({ visits: 11 }).where(eq(authors.name, "author 1"));
        await inner.insert(authors).values({ name: "author 2" }); // there is one
      }).catch((error) => error.cause?.code);
      drive.check("the inner transaction", failed, "23505");
      drive.check("behind the inner transaction", (await named(outer, "author 1")).visits, 10);
    });
    drive.check("behind the outer transaction", (await named(db, "author 1")).visits, 10);
  },
  plain: (n) => read(db, n),
  block: (n) => db.transaction((tx) => read(tx, n)),
  write: (n, title) => db.transaction(async (tx) => {
    const author = await named(tx, `author ${n}`);
    await tx.update(authors).set({ visits: sql`${authors.visits} + 1` }).where(eq(authors.id, author.id));
    await tx.insert(books).values({ authorId: author.id, title });
  }),
  end: () => pool.end(),
});
