package main

import (
	"context"
	"database/sql"
	"errors"
	"os"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/driver/pgdriver"
	"github.com/uptrace/bun/migrate"

	"pgweir/internal/e2e/orm/drive"
	"pgweir/internal/e2e/orm/schema"
)

// Author has books.
type Author struct {
	bun.BaseModel `bun:"table:authors"`

	ID     int     `bun:",pk,autoincrement"`
	Name   string  `bun:"type:varchar(100),notnull,unique"`
	Visits int     `bun:",notnull,default:0"`
	Books  []*Book `bun:"rel:has-many,join:id=author_id"`
}

// Book is of an author.
type Book struct {
	bun.BaseModel `bun:"table:books"`

	ID       int `bun:",pk,autoincrement"`
	AuthorID int
	Title    string
}

// program is the database.
type program struct{ db *bun.DB }

func main() {
	pool := sql.OpenDB(pgdriver.NewConnector(pgdriver.WithDSN(os.Getenv("DATABASE_URL"))))
	pool.SetMaxOpenConns(drive.Workers)
	pool.SetMaxIdleConns(drive.Workers)
	p := program{bun.NewDB(pool, pgdialect.New())}
	drive.Run(drive.Tool{
		Name: "bun " + drive.Version("github.com/uptrace/bun"), Up: p.up, Down: p.down, Tables: p.tables, CRUD: p.crud, Nested: p.nested,
		Plain: func(ctx context.Context, n int) error { return read(ctx, p.db, n) },
		Block: func(ctx context.Context, n int) error {
			return p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { return read(ctx, tx, n) })
		},
		Write: p.write, Code: code,
	})
}

// code is the SQLSTATE of the driver's errors.
func code(err error) string {
	var e pgdriver.Error
	if errors.As(err, &e) {
		return e.Field('C')
	}
	return ""
}

// migrator has the two migrations.
func (p program) migrator(ctx context.Context) (*migrate.Migrator, error) {
	all := migrate.NewMigrations()
	if err := all.Discover(schema.Pairs()); err != nil {
		return nil, err
	}
	m := migrate.NewMigrator(p.db, all)
	return m, m.Init(ctx)
}

// up migrates to the newest state, under the migrator's lock.
func (p program) up(ctx context.Context) error {
	m, err := p.migrator(ctx)
	if err != nil {
		return err
	}
	if err := m.Lock(ctx); err != nil {
		return err
	}
	_, err = m.Migrate(ctx)
	return errors.Join(err, m.Unlock(ctx))
}

// down takes back the group of both migrations.
func (p program) down(ctx context.Context) error {
	m, err := p.migrator(ctx)
	if err != nil {
		return err
	}
	_, err = m.Rollback(ctx)
	return err
}

// tables are those of the schema.
func (p program) tables(ctx context.Context) (names []string, err error) {
	return names, p.db.NewSelect().Table("pg_tables").Column("tablename").Where("schemaname = 'public'").Scan(ctx, &names)
}

// named is the author of that name.
func named(ctx context.Context, db bun.IDB, name string) (*Author, error) {
	a := new(Author)
	return a, db.NewSelect().Model(a).Where("name = ?", name).Scan(ctx)
}

// set changes an author's visits.
func set(ctx context.Context, db bun.IDB, name string, visits int) error {
	_, err := db.NewUpdate().Model((*Author)(nil)).Set("visits = ?", visits).Where("name = ?", name).Exec(ctx)
	return err
}

// insert inserts a model.
func insert(ctx context.Context, db bun.IDB, model any) error {
	_, err := db.NewInsert().Model(model).Exec(ctx)
	return err
}

// crud creates, reads, updates and deletes.
func (p program) crud(ctx context.Context) error {
	for n := 1; n <= drive.Authors; n++ {
		a := &Author{Name: drive.Name(n)}
		if err := insert(ctx, p.db, a); err != nil {
			return err
		}
		books := make([]Book, drive.Books)
		for i := range books {
			books[i] = Book{AuthorID: a.ID, Title: "a book"}
		}
		if err := insert(ctx, p.db, &books); err != nil {
			return err
		}
	}
	err := errors.Join(insert(ctx, p.db, &Author{Name: "extra"}), set(ctx, p.db, "extra", 3))
	got, e := named(ctx, p.db, "extra")
	err = errors.Join(err, e, drive.Check("updated", got.Visits, 3))
	of3, e := p.db.NewSelect().Model((*Book)(nil)).Join("JOIN authors ON authors.id = author_id").Where("name = ?", drive.Name(3)).Count(ctx)
	err = errors.Join(err, e, drive.Check("joined", int(of3), drive.Books))
	_, e = p.db.NewDelete().Model(got).WherePK().Exec(ctx)
	_, gone := named(ctx, p.db, "extra")
	return errors.Join(err, e, drive.Check("deleted", errors.Is(gone, sql.ErrNoRows), true))
}

// nested rolls an inner transaction back and commits the outer one.
func (p program) nested(ctx context.Context) error {
	err := p.db.RunInTx(ctx, nil, func(ctx context.Context, outer bun.Tx) error {
		if err := set(ctx, outer, drive.Name(1), 10); err != nil {
			return err
		}
		inner := outer.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			return errors.Join(set(ctx, tx, drive.Name(1), 11), insert(ctx, tx, &Author{Name: drive.Name(2)})) // there is one
		})
		a, err := named(ctx, outer, drive.Name(1))
		return errors.Join(err, drive.Check("the inner transaction", code(inner), "23505"), drive.Check("behind it", a.Visits, 10))
	})
	a, e := named(ctx, p.db, drive.Name(1))
	return errors.Join(err, e, drive.Check("behind the outer transaction", a.Visits, 10))
}

// read reads an author with the books.
func read(ctx context.Context, db bun.IDB, n int) error {
	a := new(Author)
	if err := db.NewSelect().Model(a).Relation("Books").Where("name = ?", drive.Name(n)).Scan(ctx); err != nil {
		return err
	}
	return drive.Check("enough books", len(a.Books) >= drive.Books, true)
}

// write reads an author, changes it and adds a book.
func (p program) write(ctx context.Context, n int, title string) error {
	return p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		a, err := named(ctx, tx, drive.Name(n))
		if err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(a).Set("visits = visits + 1").WherePK().Exec(ctx); err != nil {
			return err
		}
		return insert(ctx, tx, &Book{AuthorID: a.ID, Title: title})
	})
}
