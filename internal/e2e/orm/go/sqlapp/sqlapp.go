// Package sqlapp is an application on database/sql, for the tools that only migrate: no ORM, statements as one writes
// them, and ten connections.
package sqlapp

import (
	"context"
	"database/sql"
	"errors"

	"pgweir/internal/e2e/orm/drive"
)

// App is the application.
type App struct {
	DB   *sql.DB
	Code func(err error) string // the SQLSTATE of the driver's errors
}

// New opens the pool.
func New(driver, dsn string, code func(error) string) (*App, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(drive.Workers)
	db.SetMaxIdleConns(drive.Workers)
	return &App{db, code}, nil
}

// Tool is what the application does, without the migrations.
func (a *App) Tool(name string) drive.Tool {
	return drive.Tool{
		Name: name, Tables: a.tables, CRUD: a.crud, Nested: a.nested, Write: a.write, Code: a.Code,
		Plain: func(ctx context.Context, n int) error { return read(ctx, a.DB, n) },
		Block: func(ctx context.Context, n int) error {
			return a.inTx(ctx, func(tx *sql.Tx) error { return read(ctx, tx, n) })
		},
	}
}

// AllAtOnce has ten migrate at once, as ten instances of an application that start together: the tool's lock must
// let them do it one after the other.
func AllAtOnce(ctx context.Context, migrate func(ctx context.Context) error) error {
	done := make(chan error)
	for range drive.Workers {
		go func() { done <- migrate(ctx) }()
	}
	var err error
	for range drive.Workers {
		err = errors.Join(err, <-done)
	}
	return err
}

// runner is a pool or a transaction.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// inTx runs f in a transaction.
func (a *App) inTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := a.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// exec runs a statement.
func exec(ctx context.Context, on runner, query string, args ...any) error {
	_, err := on.ExecContext(ctx, query, args...)
	return err
}

// number is what a query returns.
func number(ctx context.Context, on runner, query string, args ...any) (n int, err error) {
	return n, on.QueryRowContext(ctx, query, args...).Scan(&n)
}

// visits are those of an author.
func visits(ctx context.Context, on runner, name string) (int, error) {
	return number(ctx, on, "SELECT visits FROM authors WHERE name = $1", name)
}

// texts are the rows of a query.
func texts(ctx context.Context, on runner, query string, args ...any) (all []string, err error) {
	rows, err := on.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// tables are those of the schema.
func (a *App) tables(ctx context.Context) ([]string, error) {
	return texts(ctx, a.DB, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
}

// crud creates, reads, updates and deletes.
func (a *App) crud(ctx context.Context) error {
	for n := 1; n <= drive.Authors; n++ {
		id, err := number(ctx, a.DB, "INSERT INTO authors (name) VALUES ($1) RETURNING id", drive.Name(n))
		if err != nil {
			return err
		}
		for range drive.Books {
			if err := exec(ctx, a.DB, "INSERT INTO books (author_id, title) VALUES ($1, $2)", id, "a book"); err != nil {
				return err
			}
		}
	}
	err := errors.Join(exec(ctx, a.DB, "INSERT INTO authors (name) VALUES ($1)", "extra"),
		exec(ctx, a.DB, "UPDATE authors SET visits = $1 WHERE name = $2", 3, "extra"))
	got, e := visits(ctx, a.DB, "extra")
	err = errors.Join(err, e, drive.Check("updated", got, 3))
	of3, e := number(ctx, a.DB, "SELECT count(*) FROM books JOIN authors ON authors.id = author_id WHERE name = $1", drive.Name(3))
	err = errors.Join(err, e, drive.Check("joined", of3, drive.Books), exec(ctx, a.DB, "DELETE FROM authors WHERE name = $1", "extra"))
	_, e = visits(ctx, a.DB, "extra")
	return errors.Join(err, drive.Check("deleted", errors.Is(e, sql.ErrNoRows), true))
}

// nested rolls back to a savepoint and commits.
func (a *App) nested(ctx context.Context) error {
	err := a.inTx(ctx, func(tx *sql.Tx) error {
		err := errors.Join(exec(ctx, tx, "UPDATE authors SET visits = 10 WHERE name = $1", drive.Name(1)), exec(ctx, tx, "SAVEPOINT inner_one"),
			exec(ctx, tx, "UPDATE authors SET visits = 11 WHERE name = $1", drive.Name(1)))
		inner := exec(ctx, tx, "INSERT INTO authors (name) VALUES ($1)", drive.Name(2)) // there is one
		err = errors.Join(err, drive.Check("the inner transaction", a.Code(inner), "23505"), exec(ctx, tx, "ROLLBACK TO SAVEPOINT inner_one"))
		got, e := visits(ctx, tx, drive.Name(1))
		return errors.Join(err, e, drive.Check("behind it", got, 10))
	})
	got, e := visits(ctx, a.DB, drive.Name(1))
	return errors.Join(err, e, drive.Check("behind the outer transaction", got, 10))
}

// read reads an author with the books.
func read(ctx context.Context, on runner, n int) error {
	id, err := number(ctx, on, "SELECT id FROM authors WHERE name = $1", drive.Name(n))
	if err != nil {
		return err
	}
	titles, err := texts(ctx, on, "SELECT title FROM books WHERE author_id = $1", id)
	return errors.Join(err, drive.Check("enough books", err != nil || len(titles) >= drive.Books, true))
}

// write reads an author, changes it and adds a book.
func (a *App) write(ctx context.Context, n int, title string) error {
	return a.inTx(ctx, func(tx *sql.Tx) error {
		id, err := number(ctx, tx, "SELECT id FROM authors WHERE name = $1", drive.Name(n))
		if err != nil {
			return err
		}
		if err := exec(ctx, tx, "UPDATE authors SET visits = visits + 1 WHERE id = $1", id); err != nil {
			return err
		}
		return exec(ctx, tx, "INSERT INTO books (author_id, title) VALUES ($1, $2)", id, title)
	})
}
