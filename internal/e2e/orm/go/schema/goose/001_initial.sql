-- +goose Up
CREATE TABLE authors (id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE);
CREATE TABLE books (id serial PRIMARY KEY, author_id integer NOT NULL REFERENCES authors ON DELETE CASCADE, title text NOT NULL);

-- +goose Down
DROP TABLE books;
DROP TABLE authors;
