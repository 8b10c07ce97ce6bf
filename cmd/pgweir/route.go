package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgweir/internal/catalog"
	"pgweir/router"
)

// routeTimeout bounds what route asks of a server.
const routeTimeout = 30 * time.Second

// routeLine is what route prints of one statement; its JSON form is part of the interface.
type routeLine struct {
	Statement string `json:"statement"`
	Class     string `json:"class"`
	Target    string `json:"target"`
	Reason    string `json:"reason"`
}

// runRoute prints for each statement of a file, or of standard input, where it would go and
// why. Without a DSN every relation counts as an ordinary table, and every function that is
// not built in as unknown.
func runRoute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	_ = stderr
	fs := newFlagSet("route", "[--json] [-0] [--dsn DSN] [FILE]\n\nSays for each statement of FILE, or of standard input, where it would go and why.")
	asJSON := fs.Bool("json", false, "print one JSON object a statement")
	nul := fs.Bool("0", false, "statements are separated by NUL bytes instead of semicolons")
	dsn := fs.String("dsn", "", "ask this database for what its names mean")
	if err := parseFlags(fs, args, 1, stdout); err != nil {
		return err
	}
	text, err := readStatements(fs.Arg(0), stdin)
	if err != nil {
		return err
	}
	env := &router.Env{Catalog: &router.Catalog{AssumeTables: true}, StdStrings: true}
	if *dsn != "" {
		if env, err = askDatabase(ctx, *dsn); err != nil {
			return err
		}
	}
	statements := bytes.Split(text, []byte{0})
	if !*nul {
		statements = router.Split(text, env.StdStrings)
	}
	return printRoutes(stdout, statements, env, *asJSON)
}

// readStatements reads a file, or stdin when there is no name.
func readStatements(name string, stdin io.Reader) ([]byte, error) {
	if name == "" || name == "-" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return text, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	return text, nil
}

// printRoutes classifies each statement as a unit of its own and prints what came out.
func printRoutes(w io.Writer, statements [][]byte, env *router.Env, asJSON bool) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	classifier := router.New(router.DefaultConfig())
	for _, s := range statements {
		s = bytes.TrimSpace(s)
		if len(s) == 0 {
			continue
		}
		u := classifier.Classify(s, env)
		line := routeLine{string(s), u.Class.String(), router.TargetPrimary.String(), u.Reason.String()}
		if u.Class == router.ClassRead {
			line.Target = router.TargetStandby.String()
		}
		var err error
		if asJSON {
			err = enc.Encode(line)
		} else {
			_, err = fmt.Fprintf(out, "%-7s  %-7s  %-13s  %s\n", line.Class, line.Target, line.Reason, strings.Join(strings.Fields(line.Statement), " "))
		}
		if err != nil {
			return fmt.Errorf("print routes: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print routes: %w", err)
	}
	return nil
}

// askDatabase reads what the database behind a DSN says of its names, and of the session that
// the DSN makes.
func askDatabase(ctx context.Context, dsn string) (*router.Env, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, routeTimeout, fmt.Errorf("no answer within %v", routeTimeout))
	defer cancel()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read the DSN: %w", err)
	}
	conn, cfg, err := connectFirst(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.Exec(ctx, "SELECT current_user, current_setting('search_path'), current_setting('standard_conforming_strings'), current_database()").ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ask for the session's settings: %w", err)
	}
	row := results[0].Rows[0]
	db, err := catalog.Read(ctx, cfg, catalog.Rules{}, routeTimeout)
	if err != nil {
		return nil, err
	}
	env := &router.Env{
		Database: string(row[3]), Catalog: db.View(), Path: db.Path(string(row[0]), string(row[1]), false),
		StdStrings: string(row[2]) == "on",
	}
	if env.Path == nil {
		env.Catalog = nil
	}
	return env, nil
}

// connectFirst connects to the first address of a configuration that takes the connection,
// and returns the configuration of that address alone.
func connectFirst(ctx context.Context, cfg *pgconn.Config) (*pgconn.PgConn, *pgconn.Config, error) {
	var errs []error
	for i := -1; i < len(cfg.Fallbacks); i++ {
		one := cfg.Copy()
		one.Fallbacks = nil
		if i >= 0 {
			f := cfg.Fallbacks[i]
			one.Host, one.Port, one.TLSConfig = f.Host, f.Port, f.TLSConfig
		}
		conn, err := pgconn.ConnectConfig(ctx, one)
		if err == nil {
			return conn, one, nil
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}
