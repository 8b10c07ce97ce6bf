// TypeORM: its migrations, repositories and transactions, on a pool of ten.
"use strict";
const drive = require("../drive");
const { DataSource, EntitySchema, Table, TableColumn, TableForeignKey } = require("typeorm");

class Initial1700000000001 {
  async up(q) {
    const id = { name: "id", type: "int", isPrimary: true, isGenerated: true, generationStrategy: "increment" };
    await q.createTable(new Table({ name: "authors", columns: [id, { name: "name", type: "varchar", length: "100", isUnique: true }] }));
    await q.createTable(new Table({ name: "books", columns: [id, { name: "author_id", type: "int" }, { name: "title", type: "text" }] }));
    await q.createForeignKey("books", new TableForeignKey({
      columnNames: ["author_id"], referencedTableName: "authors", referencedColumnNames: ["id"], onDelete: "CASCADE",
    }));
  }
  async down(q) {
    await q.dropTable("books");
    await q.dropTable("authors");
  }
}

class Visits1700000000002 {
  async up(q) {
    await q.addColumn("authors", new TableColumn({ name: "visits", type: "int", default: 0 }));
    await q.query("INSERT INTO authors (name, visits) VALUES ($1, 1)", ["greeted"]);
    await q.query("DELETE FROM authors WHERE visits = $1", [1]);
  }
  async down(q) {
    await q.dropColumn("authors", "visits");
  }
}

const Author = new EntitySchema({
  name: "Author", tableName: "authors",
  columns: { id: { type: Number, primary: true, generated: true }, name: { type: String, unique: true }, visits: { type: Number, default: 0 } },
  relations: { books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: ["insert"] } },
});
const Book = new EntitySchema({
  name: "Book", tableName: "books",
  columns: { id: { type: Number, primary: true, generated: true }, title: { type: "text" } },
  relations: { author: { type: "many-to-one", target: "Author", inverseSide: "books", joinColumn: { name: "author_id" }, onDelete: "CASCADE" } },
});

const source = new DataSource({
  type: "postgres", url: process.env.DATABASE_URL, poolSize: drive.WORKERS, entities: [Author, Book],
  migrations: [Initial1700000000001, Visits1700000000002], logging: false,
});
const ready = source.initialize();

async function read(manager, n) {
  const author = await manager.findOneOrFail(Author, { where: { name: `author ${n}` }, relations: { books: true }, relationLoadStrategy: "query" });
  if (author.books.length < drive.BOOKS) throw new Error("too few books");
}

drive.run({
  name: () => `TypeORM ${drive.version("typeorm")}`,
  async up() {
    await ready;
    await source.runMigrations();
  },
  async down() {
    for (let i = 0; i < 2; i++) await source.undoLastMigration();
  },
  tables: async () => (await source.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).map((r) => r.tablename),
  async crud() {
    const authors = source.getRepository(Author);
    for (let a = 1; a <= drive.AUTHORS; a++) {
      await authors.save({ name: `author ${a}`, books: Array.from({ length: drive.BOOKS }, (_, b) => ({ title: `book ${b}` })) });
    }
    const extra = await authors.save({ name: "extra" });
    extra.visits = 3;
    await authors.save(extra);
    drive.check("updated", (await authors.findOneByOrFail({ name: "extra" })).visits, 3);
    drive.check("joined", await source.getRepository(Book).count({ where: { author: { name: "author 3" } } }), drive.BOOKS);
    await authors.remove(extra);
    drive.check("deleted", await authors.findOneBy({ name: "extra" }), null);
  },
  async nested() {
    const visits = async (m) => (await m.findOneByOrFail(Author, { name: "author 1" })).visits;
    await source.transaction(async (outer) => {
      await outer.update(Author, { name: "author 1" }, { visits: 10 });
      const failed = await outer.transaction(async (inner) => {
        await inner.update(Author, { name: "author 1" }, { visits: 11 });
        await inner.insert(Author, { name: "author 2" }); // there is one
      }).catch((error) => error.code);
      drive.check("the inner transaction", failed, "23505");
      drive.check("behind the inner transaction", await visits(outer), 10);
    });
    drive.check("behind the outer transaction", await visits(source.manager), 10);
  },
  plain: (n) => read(source.manager, n),
  block: (n) => source.transaction((m) => read(m, n)),
  write: (n, title) => source.transaction(async (m) => {
    const author = await m.findOneByOrFail(Author, { name: `author ${n}` });
    await m.increment(Author, { id: author.id }, "visits", 1);
    await m.save(Book, { author, title });
  }),
  end: () => source.destroy(),
});
