"""Django: its migrations, models and transactions, with one persistent connection in each of ten threads."""
import sys
from contextlib import contextmanager
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent / "python")]

import django
import drive
from django.conf import settings

at = drive.address()
settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "HOST": at["host"], "PORT": at["port"],
        "USER": at["user"], "PASSWORD": at["password"], "NAME": at["database"], "CONN_MAX_AGE": None,
    }},
    INSTALLED_APPS=["library"], DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True,
)
django.setup()

from django.core.management import call_command
from django.db import close_old_connections, connection, transaction
from django.db.models import F
from library.models import Author, Book


@contextmanager
def request():
    """What Django does around each request: connections that have seen an error are looked at."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class Django:
    def name(self):
        return f"Django {django.get_version()}"

    def up(self):
        call_command("migrate", "library", verbosity=0)

    def down(self):
        call_command("migrate", "library", "zero", verbosity=0)

    def tables(self):
        return set(connection.introspection.table_names())

    def crud(self):
        for a in range(1, drive.AUTHORS + 1):
            author = Author.objects.create(name=f"author {a}")
            Book.objects.bulk_create(Book(author=author, title=f"book {b}") for b in range(drive.BOOKS))
        extra, made = Author.objects.get_or_create(name="extra")
        drive.check("made", made, True)
        extra.visits = 3
        extra.save()
        drive.check("updated", Author.objects.get(name="extra").visits, 3)
        drive.check("joined", Book.objects.filter(author__name="author 3").count(), drive.BOOKS)
        extra.delete()
        drive.check("deleted", Author.objects.filter(name="extra").exists(), False)

    def nested(self):
        with transaction.atomic():
            Author.objects.filter(name="author 1").update(visits=10)
            try:
                with transaction.atomic():
                    Author.objects.filter(name="author 1").update(visits=11)
                    Author.objects.create(name="author 2")  # there is one
            except django.db.IntegrityError:
                pass
            drive.check("behind the inner transaction", Author.objects.get(name="author 1").visits, 10)
        drive.check("behind the outer transaction", Author.objects.get(name="author 1").visits, 10)

    def plain(self, n):
        with request():
            author = Author.objects.prefetch_related("books").get(name=f"author {n}")
            assert len(author.books.all()) >= drive.BOOKS

    def block(self, n):
        with request(), transaction.atomic():
            author = Author.objects.prefetch_related("books").get(name=f"author {n}")
            assert len(author.books.all()) >= drive.BOOKS

    def write(self, n, title):
        with request(), transaction.atomic():
            author = Author.objects.get(name=f"author {n}")
            author.visits = F("visits") + 1
            author.save(update_fields=["visits"])
            author.books.create(title=title)

    def code(self, error):
        return getattr(error.__cause__, "pgcode", None) or type(error).__name__


drive.main(Django())
