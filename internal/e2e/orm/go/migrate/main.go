package main

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/lib/pq"

	"pgweir/internal/e2e/orm/drive"
	"pgweir/internal/e2e/orm/schema"
	"pgweir/internal/e2e/orm/sqlapp"
)

func main() {
	app, err := sqlapp.New("postgres", os.Getenv("DATABASE_URL"), code)
	if err != nil {
		log.Fatal(err)
	}
	t := app.Tool("golang-migrate " + drive.Version("github.com/golang-migrate/migrate/v4") + " beside database/sql with lib/pq")
	t.Up = func(ctx context.Context) error {
		return sqlapp.AllAtOnce(ctx, func(context.Context) error { return move((*migrate.Migrate).Up) })
	}
	t.Down = func(context.Context) error { return move((*migrate.Migrate).Down) }
	drive.Run(t)
}

// code is the SQLSTATE of lib/pq's errors.
func code(err error) string {
	var e *pq.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return ""
}

// move migrates over a connection of its own, under the tool's advisory lock.
func move(where func(*migrate.Migrate) error) error {
	source, err := iofs.New(schema.Pairs(), ".")
	if err != nil {
		return err
	}
	m, err := migrate.NewWithSourceInstance("iofs", source, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	if err = where(m); errors.Is(err, migrate.ErrNoChange) {
		err = nil // another was first
	}
	sourceErr, databaseErr := m.Close()
	return errors.Join(err, sourceErr, databaseErr)
}
