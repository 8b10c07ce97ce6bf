from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)
    visits = models.IntegerField(default=0)

    class Meta:
        db_table = "authors"


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    title = models.TextField()

    class Meta:
        db_table = "books"
