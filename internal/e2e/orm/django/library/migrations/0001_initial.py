from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Author", [
            ("id", models.AutoField(primary_key=True)),
            ("name", models.CharField(max_length=100, unique=True)),
        ], {"db_table": "authors"}),
        migrations.CreateModel("Book", [
            ("id", models.AutoField(primary_key=True)),
            ("author", models.ForeignKey("library.Author", models.CASCADE, related_name="books")),
            ("title", models.TextField()),
        ], {"db_table": "books"}),
    ]
