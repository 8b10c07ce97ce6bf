"""SQLAlchemy with Alembic: a session for each request, which begins its transaction by itself, on a pool of ten."""
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent / "python"))

import alembic
import drive
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.orm import Session, declarative_base, relationship, selectinload

at = drive.address()
engine = sa.create_engine(
    sa.engine.URL.create("postgresql+psycopg2", at["user"], at["password"], at["host"], at["port"], at["database"]),
    pool_size=drive.WORKERS, max_overflow=0, future=True,
)
Base = declarative_base()


class Author(Base):
    __tablename__ = "authors"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(100), nullable=False, unique=True)
    visits = sa.Column(sa.Integer, nullable=False, server_default="0")
    books = relationship("Book", back_populates="author", passive_deletes=True)


class Book(Base):
    __tablename__ = "books"
    id = sa.Column(sa.Integer, primary_key=True)
    author_id = sa.Column(sa.Integer, sa.ForeignKey("authors.id", ondelete="CASCADE"), nullable=False)
    title = sa.Column(sa.Text, nullable=False)
    author = relationship("Author", back_populates="books")


def named(name):
    return sa.select(Author).where(Author.name == name)


class SQLAlchemy:
    def name(self):
        return f"SQLAlchemy {sa.__version__}, Alembic {alembic.__version__}"

    def migrate(self, move, to):
        config = Config()
        config.set_main_option("script_location", str(here / "migrations"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            move(config, to)

    def up(self):
        self.migrate(command.upgrade, "head")

    def down(self):
        self.migrate(command.downgrade, "base")

    def tables(self):
        return set(sa.inspect(engine).get_table_names())

    def crud(self):
        with Session(engine) as session:
            for a in range(1, drive.AUTHORS + 1):
                session.add(Author(name=f"author {a}", books=[Book(title=f"book {b}") for b in range(drive.BOOKS)]))
            extra = Author(name="extra")
            session.add(extra)
            session.commit()
            extra.visits = 3
            session.commit()
            drive.check("updated", session.scalars(named("extra")).one().visits, 3)
            of3 = sa.select(sa.func.count()).select_from(Book).join(Author).where(Author.name == "author 3")
            drive.check("joined", session.scalar(of3), drive.BOOKS)
            session.delete(extra)
            session.commit()
            drive.check("deleted", session.scalars(named("extra")).first(), None)

    def nested(self):
        with Session(engine) as session:
            one = session.scalars(named("author 1")).one()
            one.visits = 10
            try:
                with session.begin_nested():
                    one.visits = 11
                    session.add(Author(name="author 2"))  # there is one
            except sa.exc.IntegrityError:
                pass
            drive.check("behind the inner transaction", session.scalars(named("author 1")).one().visits, 10)
            session.commit()
            drive.check("behind the outer transaction", session.scalars(named("author 1")).one().visits, 10)

    def plain(self, n):
        with Session(engine) as session:
            author = session.scalars(named(f"author {n}").options(selectinload(Author.books))).one()
            assert len(author.books) >= drive.BOOKS

    def block(self, n):
        with Session(engine) as session, session.begin():
            author = session.scalars(named(f"author {n}").options(selectinload(Author.books))).one()
            assert len(author.books) >= drive.BOOKS

    def write(self, n, title):
        with Session(engine) as session, session.begin():
            author = session.scalars(named(f"author {n}")).one()
            author.visits = Author.visits + 1
            session.add(Book(author_id=author.id, title=title))

    def code(self, error):
        return getattr(getattr(error, "orig", None), "pgcode", None) or type(error).__name__


drive.main(SQLAlchemy())
