import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.add_column("authors", sa.Column("visits", sa.Integer, nullable=False, server_default="0"))
    authors = sa.table("authors", sa.column("name"), sa.column("visits"))
    op.bulk_insert(authors, [{"name": "greeted", "visits": 1}])
    op.execute(authors.delete().where(authors.c.visits == 1))


def downgrade():
    op.drop_column("authors", "visits")
