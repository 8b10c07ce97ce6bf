package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The shape of what sqlc generates for pgx/v5: a type for rows, Queries over whatever runs a statement, and a
// method for each query.

// DBTX is a pool or a transaction.
type DBTX interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// Queries are the statements.
type Queries struct{ db DBTX }

// New makes Queries of a pool.
func New(db DBTX) *Queries { return &Queries{db: db} }

// WithTx is the same in a transaction.
func (q *Queries) WithTx(tx pgx.Tx) *Queries { return &Queries{db: tx} }

// Author is a row of authors.
type Author struct {
	ID     int32
	Name   string
	Visits int32
}

const getAuthor = `-- name: GetAuthor :one
SELECT id, name, visits FROM authors WHERE name = $1
`

// GetAuthor is the author of that name.
func (q *Queries) GetAuthor(ctx context.Context, name string) (Author, error) {
	row := q.db.QueryRow(ctx, getAuthor, name)
	var i Author
	err := row.Scan(&i.ID, &i.Name, &i.Visits)
	return i, err
}

const createAuthor = `-- name: CreateAuthor :one
INSERT INTO authors (name) VALUES ($1) RETURNING id, name, visits
`

// CreateAuthor inserts an author.
func (q *Queries) CreateAuthor(ctx context.Context, name string) (Author, error) {
	row := q.db.QueryRow(ctx, createAuthor, name)
	var i Author
	err := row.Scan(&i.ID, &i.Name, &i.Visits)
	return i, err
}

const setVisits = `-- name: SetVisits :exec
UPDATE authors SET visits = $2 WHERE name = $1
`

// SetVisits changes an author.
func (q *Queries) SetVisits(ctx context.Context, name string, visits int32) error {
	_, err := q.db.Exec(ctx, setVisits, name, visits)
	return err
}

const addVisit = `-- name: AddVisit :exec
UPDATE authors SET visits = visits + 1 WHERE id = $1
`

// AddVisit counts a visit.
func (q *Queries) AddVisit(ctx context.Context, id int32) error {
	_, err := q.db.Exec(ctx, addVisit, id)
	return err
}

const deleteAuthor = `-- name: DeleteAuthor :exec
DELETE FROM authors WHERE name = $1
`

// DeleteAuthor deletes an author and the books.
func (q *Queries) DeleteAuthor(ctx context.Context, name string) error {
	_, err := q.db.Exec(ctx, deleteAuthor, name)
	return err
}

const createBook = `-- name: CreateBook :exec
INSERT INTO books (author_id, title) VALUES ($1, $2)
`

// CreateBook inserts a book.
func (q *Queries) CreateBook(ctx context.Context, authorID int32, title string) error {
	_, err := q.db.Exec(ctx, createBook, authorID, title)
	return err
}

const listTitles = `-- name: ListTitles :many
SELECT title FROM books WHERE author_id = $1 ORDER BY id
`

// ListTitles are those of an author's books.
func (q *Queries) ListTitles(ctx context.Context, authorID int32) ([]string, error) {
	rows, err := q.db.Query(ctx, listTitles, authorID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []string
	for rows.Next() {
		var title string
		if err := rows.Scan(&title); err != nil {
			return nil, err
		}
		items = append(items, title)
	}
	return items, rows.Err()
}

const listTables = `-- name: ListTables :many
SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = 'public'
`

// ListTables are those of the schema.
func (q *Queries) ListTables(ctx context.Context) ([]string, error) {
	rows, err := q.db.Query(ctx, listTables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
