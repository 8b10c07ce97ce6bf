// Sequelize with Umzug, which is what its command line migrates with: models and transactions on a pool of ten.
"use strict";
const drive = require("../drive");
const { DataTypes, Sequelize } = require("sequelize");
const { SequelizeStorage, Umzug } = require("umzug");

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false, pool: { max: drive.WORKERS, acquire: 60000 } });
const id = { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true };
const Author = sequelize.define("author", { id, name: { type: DataTypes.STRING(100), unique: true }, visits: DataTypes.INTEGER }, { timestamps: false });
const Book = sequelize.define("book", { id, title: DataTypes.TEXT }, { timestamps: false, underscored: true });
Author.hasMany(Book, { foreignKey: "author_id" });
Book.belongsTo(Author, { foreignKey: "author_id" });

const umzug = new Umzug({
  context: sequelize.getQueryInterface(),
  storage: new SequelizeStorage({ sequelize }),
  logger: undefined,
  migrations: [{
    name: "0001_initial",
    async up({ context: q }) {
      await q.createTable("authors", { id, name: { type: DataTypes.STRING(100), allowNull: false, unique: true } });
      const author_id = { type: DataTypes.INTEGER, allowNull: false, references: { model: "authors", key: "id" }, onDelete: "CASCADE" };
      await q.createTable("books", { id, author_id, title: { type: DataTypes.TEXT, allowNull: false } });
    },
    async down({ context: q }) {
      await q.dropTable("books");
      await q.dropTable("authors");
    },
  }, {
    name: "0002_visits",
    async up({ context: q }) {
      await q.addColumn("authors", "visits", { type: DataTypes.INTEGER, allowNull: false, defaultValue: 0 });
      await q.bulkInsert("authors", [{ name: "greeted", visits: 1 }]);
      await q.bulkDelete("authors", { visits: 1 });
    },
    down: ({ context: q }) => q.removeColumn("authors", "visits"),
  }],
});

const named = (name, transaction, more = {}) => Author.findOne({ where: { name }, rejectOnEmpty: true, transaction, ...more });

async function read(n, transaction) {
  const author = await named(`author ${n}`, transaction, { include: [{ model: Book, separate: true }] });
  if (author.books.length < drive.BOOKS) throw new Error("too few books");
}

drive.run({
  name: () => `Sequelize ${drive.version("sequelize")}, Umzug ${drive.version("umzug")}`,
  up: () => umzug.up(),
  down: () => umzug.down({ to: 0 }),
  tables: () => sequelize.getQueryInterface().showAllTables(),
  async crud() {
    for (let a = 1; a <= drive.AUTHORS; a++) {
      await Author.create({ name: `author ${a}`, visits: 0, books: Array.from({ length: drive.BOOKS }, (_, b) => ({ title: `book ${b}` })) }, { include: [Book] });
    }
    const extra = await Author.create({ name: "extra", visits: 0 });
    extra.visits = 3;
    await extra.save();
    drive.check("updated", (await named("extra")).visits, 3);
    drive.check("joined", await Book.count({ include: [{ model: Author, where: { name: "author 3" } }] }), drive.BOOKS);
    await extra.destroy();
    drive.check("deleted", await Author.count({ where: { name: "extra" } }), 0);
  },
  async nested() {
    await sequelize.transaction(async (outer) => {
      await Author.update({ visits: 10 }, { where: { name: "author 1" }, transaction: outer });
      const failed = await sequelize.transaction({ transaction: outer }, async (inner) => {
        await Author.update({ visits: 11 }, { where: { name: "author 1" }, transaction: inner });
        await Author.create({ name: "author 2", visits: 0 }, { transaction: inner }); // there is one
      }).catch((error) => error.original?.code);
      drive.check("the inner transaction", failed, "23505");
      drive.check("behind the inner transaction", (await named("author 1", outer)).visits, 10);
    });
    drive.check("behind the outer transaction", (await named("author 1")).visits, 10);
  },
  plain: (n) => read(n),
  block: (n) => sequelize.transaction((t) => read(n, t)),
  write: (n, title) => sequelize.transaction(async (transaction) => {
    const author = await named(`author ${n}`, transaction);
    await author.increment("visits", { transaction });
    await author.createBook({ title }, { transaction });
  }),
  end: () => sequelize.close(),
});
