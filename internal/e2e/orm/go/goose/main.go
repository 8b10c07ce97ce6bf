package main

import (
	"context"
	"log"
	"os"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"pgweir/internal/e2e/orm/drive"
	"pgweir/internal/e2e/orm/schema"
	"pgweir/internal/e2e/orm/sqlapp"
)

func main() {
	app, err := sqlapp.New("pgx", os.Getenv("DATABASE_URL"), drive.Code)
	if err != nil {
		log.Fatal(err)
	}
	t := app.Tool("goose " + drive.Version("github.com/pressly/goose/v3") + " beside database/sql with pgx")
	t.Up = func(ctx context.Context) error {
		return sqlapp.AllAtOnce(ctx, func(ctx context.Context) error {
			p, err := provider(app)
			if err != nil {
				return err
			}
			_, err = p.Up(ctx)
			return err
		})
	}
	t.Down = func(ctx context.Context) error {
		p, err := provider(app)
		if err != nil {
			return err
		}
		_, err = p.DownTo(ctx, 0)
		return err
	}
	drive.Run(t)
}

// provider migrates under a session's advisory lock.
func provider(app *sqlapp.App) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return nil, err
	}
	files, err := schema.Goose()
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, app.DB, files, goose.WithSessionLocker(locker))
}
