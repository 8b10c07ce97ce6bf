from django.db import migrations, models


def greet(apps, schema_editor):
    """A data migration: reads and writes beside the change of the schema."""
    Author = apps.get_model("library", "Author")
    Author.objects.create(name="greeted")
    Author.objects.filter(name="greeted").update(visits=1)
    Author.objects.filter(visits=1).delete()


class Migration(migrations.Migration):
    dependencies = [("library", "0001_initial")]
    operations = [
        migrations.AddField("Author", "visits", models.IntegerField(default=0)),
        migrations.RunPython(greet, migrations.RunPython.noop),
    ]
