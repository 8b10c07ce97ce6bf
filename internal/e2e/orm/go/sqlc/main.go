package main

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"pgweir/internal/e2e/orm/drive"
	"pgweir/internal/e2e/orm/schema"
)

// program is the database.
type program struct {
	pool *pgxpool.Pool
	q    *Queries
}

func main() {
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	cfg.MaxConns = drive.Workers
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	p := program{pool, New(pool)}
	drive.Run(drive.Tool{
		Name: "pgx " + drive.Version("github.com/jackc/pgx/v5") + " as sqlc uses it", Tables: p.q.ListTables, CRUD: p.crud, Nested: p.nested,
		Up:    func(ctx context.Context) error { return p.migrate(ctx, "001_initial.up.sql", "002_visits.up.sql") },
		Down:  func(ctx context.Context) error { return p.migrate(ctx, "002_visits.down.sql", "001_initial.down.sql") },
		Plain: func(ctx context.Context, n int) error { return read(ctx, p.q, n) },
		Block: func(ctx context.Context, n int) error {
			return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return read(ctx, p.q.WithTx(tx), n) })
		},
		Write: p.write,
	})
}

// migrate runs files of SQL in one transaction.
func (p program) migrate(ctx context.Context, files ...string) error {
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		for _, f := range files {
			text, err := fs.ReadFile(schema.Pairs(), f)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(text), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return nil
	})
}

// crud creates, reads, updates and deletes.
func (p program) crud(ctx context.Context) error {
	for n := 1; n <= drive.Authors; n++ {
		a, err := p.q.CreateAuthor(ctx, drive.Name(n))
		if err != nil {
			return err
		}
		for range drive.Books {
			if err := p.q.CreateBook(ctx, a.ID, "a book"); err != nil {
				return err
			}
		}
	}
	extra, err := p.q.CreateAuthor(ctx, "extra")
	err = errors.Join(err, p.q.SetVisits(ctx, extra.Name, 3))
	got, e := p.q.GetAuthor(ctx, "extra")
	err = errors.Join(err, e, drive.Check("updated", got.Visits, int32(3)))
	third, e := p.q.GetAuthor(ctx, drive.Name(3))
	err = errors.Join(err, e)
	titles, e := p.q.ListTitles(ctx, third.ID)
	err = errors.Join(err, e, drive.Check("listed", len(titles), drive.Books), p.q.DeleteAuthor(ctx, "extra"))
	_, e = p.q.GetAuthor(ctx, "extra")
	return errors.Join(err, drive.Check("deleted", errors.Is(e, pgx.ErrNoRows), true))
}

// nested rolls an inner transaction back and commits the outer one.
func (p program) nested(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, p.pool, func(outer pgx.Tx) error {
		q := p.q.WithTx(outer)
		if err := q.SetVisits(ctx, drive.Name(1), 10); err != nil {
			return err
		}
		inner := pgx.BeginFunc(ctx, outer, func(tx pgx.Tx) error {
			err := p.q.WithTx(tx).SetVisits(ctx, drive.Name(1), 11)
			_, e := p.q.WithTx(tx).CreateAuthor(ctx, drive.Name(2)) // there is one
			return errors.Join(err, e)
		})
		a, err := q.GetAuthor(ctx, drive.Name(1))
		return errors.Join(err, drive.Check("the inner transaction", drive.Code(inner), "23505"), drive.Check("behind it", a.Visits, int32(10)))
	})
	a, e := p.q.GetAuthor(ctx, drive.Name(1))
	return errors.Join(err, e, drive.Check("behind the outer transaction", a.Visits, int32(10)))
}

// read reads an author with the books.
func read(ctx context.Context, q *Queries, n int) error {
	a, err := q.GetAuthor(ctx, drive.Name(n))
	if err != nil {
		return err
	}
	titles, err := q.ListTitles(ctx, a.ID)
	return errors.Join(err, drive.Check("enough books", err != nil || len(titles) >= drive.Books, true))
}

// write reads an author, changes it and adds a book.
func (p program) write(ctx context.Context, n int, title string) error {
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		q := p.q.WithTx(tx)
		a, err := q.GetAuthor(ctx, drive.Name(n))
		if err != nil {
			return err
		}
		if err := q.AddVisit(ctx, a.ID); err != nil {
			return err
		}
		return q.CreateBook(ctx, a.ID, title)
	})
}
