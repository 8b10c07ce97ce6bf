package main

import (
	"context"
	"errors"
	"log"
	"os"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"pgweir/internal/e2e/orm/drive"
)

// Author has books.
type Author struct {
	ID     int
	Name   string `gorm:"size:100;not null;uniqueIndex"`
	Visits int    `gorm:"not null;default:0"`
	Books  []Book `gorm:"constraint:OnDelete:CASCADE"`
}

// Book is of an author.
type Book struct {
	ID       int
	AuthorID int    `gorm:"not null;index"`
	Title    string `gorm:"not null"`
}

// firstAuthor is the table before its second migration.
type firstAuthor struct {
	ID   int
	Name string `gorm:"size:100;not null;uniqueIndex:idx_authors_name"`
}

// TableName is authors.
func (firstAuthor) TableName() string { return "authors" }

// program is the database.
type program struct{ db *gorm.DB }

func main() {
	db, err := gorm.Open(postgres.Open(os.Getenv("DATABASE_URL")), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		log.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		log.Fatal(err)
	}
	pool.SetMaxOpenConns(drive.Workers)
	pool.SetMaxIdleConns(drive.Workers)
	p := program{db}
	drive.Run(drive.Tool{
		Name: "GORM " + drive.Version("gorm.io/gorm"), Up: p.up, Down: p.down,
		Tables: func(ctx context.Context) ([]string, error) { return db.WithContext(ctx).Migrator().GetTables() },
		CRUD:   p.crud, Nested: p.nested,
		Plain: func(ctx context.Context, n int) error { return read(db.WithContext(ctx), n) },
		Block: func(ctx context.Context, n int) error {
			return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return read(tx, n) })
		},
		Write: p.write,
	})
}

// up makes the tables as they were first, and migrates them to what they are now.
func (p program) up(ctx context.Context) error {
	db := p.db.WithContext(ctx)
	return errors.Join(db.AutoMigrate(&firstAuthor{}), db.AutoMigrate(&Author{}, &Book{}),
		db.Create(&Author{Name: "greeted", Visits: 1}).Error, db.Where("visits = ?", 1).Delete(&Author{}).Error)
}

// down takes both migrations back.
func (p program) down(ctx context.Context) error {
	m := p.db.WithContext(ctx).Migrator()
	return errors.Join(m.DropColumn(&Author{}, "Visits"), m.DropTable(&Book{}, &Author{}))
}

// named is the author of that name.
func named(db *gorm.DB, name string) (a Author, err error) {
	return a, db.Where("name = ?", name).First(&a).Error
}

// crud creates, reads, updates and deletes.
func (p program) crud(ctx context.Context) error {
	db := p.db.WithContext(ctx)
	for n := 1; n <= drive.Authors; n++ {
		a := Author{Name: drive.Name(n)}
		for range drive.Books {
			a.Books = append(a.Books, Book{Title: "a book"})
		}
		if err := db.Create(&a).Error; err != nil {
			return err
		}
	}
	extra := Author{Name: "extra"}
	err := errors.Join(db.Create(&extra).Error, db.Model(&extra).Update("visits", 3).Error)
	got, e := named(db, "extra")
	err = errors.Join(err, e, drive.Check("updated", got.Visits, 3))
	var of3 int64
	err = errors.Join(err, db.Model(&Book{}).Joins("JOIN authors ON authors.id = books.author_id").Where("authors.name = ?", drive.Name(3)).Count(&of3).Error,
		drive.Check("joined", int(of3), drive.Books), db.Delete(&extra).Error)
	_, e = named(db, "extra")
	return errors.Join(err, drive.Check("deleted", errors.Is(e, gorm.ErrRecordNotFound), true))
}

// nested rolls an inner transaction back and commits the outer one.
func (p program) nested(ctx context.Context) error {
	err := p.db.WithContext(ctx).Transaction(func(outer *gorm.DB) error {
		if err := outer.Model(&Author{}).Where("name = ?", drive.Name(1)).Update("visits", 10).Error; err != nil {
			return err
		}
		inner := outer.Transaction(func(tx *gorm.DB) error {
			return errors.Join(tx.Model(&Author{}).Where("name = ?", drive.Name(1)).Update("visits", 11).Error,
				tx.Create(&Author{Name: drive.Name(2)}).Error) // there is one
		})
		a, err := named(outer, drive.Name(1))
		return errors.Join(err, drive.Check("the inner transaction", drive.Code(inner), "23505"), drive.Check("behind it", a.Visits, 10))
	})
	a, e := named(p.db.WithContext(ctx), drive.Name(1))
	return errors.Join(err, e, drive.Check("behind the outer transaction", a.Visits, 10))
}

// read reads an author with the books.
func read(db *gorm.DB, n int) error {
	a, err := named(db.Preload("Books"), drive.Name(n))
	if err != nil {
		return err
	}
	return drive.Check("enough books", len(a.Books) >= drive.Books, true)
}

// write reads an author, changes it and adds a book.
func (p program) write(ctx context.Context, n int, title string) error {
	return p.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		a, err := named(tx, drive.Name(n))
		if err != nil {
			return err
		}
		if err := tx.Model(&a).Update("visits", gorm.Expr("visits + 1")).Error; err != nil {
			return err
		}
		return tx.Create(&Book{AuthorID: a.ID, Title: title}).Error
	})
}
