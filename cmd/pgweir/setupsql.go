package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
)

// setupScript makes the monitor's role, promoteScript adds the rights of promotion by pgweir.
// :role stands for the role as an identifier, :'role' for its name as a literal, :role: for the
// name in a comment.
var (
	//go:embed setup.sql
	setupScript string
	//go:embed setup-promote.sql
	promoteScript string
)

// DefaultAuthQuery is what auth.query: default stands for: name and secret of the user $1, no
// row for one who may not log in.
const DefaultAuthQuery = "SELECT usename, passwd FROM pgweir.user_lookup($1)"

// setupSQL is the script for a role of that name. It may be run any number of times.
func setupSQL(role string, promote bool) (string, error) {
	switch {
	case role == "":
		return "", errors.New("the role needs a name")
	case strings.ContainsAny(role, "\x00\n\r"), len(role) > 63:
		return "", fmt.Errorf("%q cannot be the name of a role", role)
	case strings.HasPrefix(role, "pg_"):
		return "", fmt.Errorf("%q: names that start with pg_ are the server's own", role)
	}
	script := setupScript
	if promote {
		script += promoteScript
	}
	script += "\nCOMMIT;\n"
	ident := role
	if !isPlainIdentifier(role) {
		ident = `"` + strings.ReplaceAll(role, `"`, `""`) + `"`
	}
	return strings.NewReplacer(
		":'role'", literal(role), ":role:", ident, ":role", ident,
	).Replace(script), nil
}

// literal is s as SQL text, whatever standard_conforming_strings says.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// isPlainIdentifier says whether s needs no quotes: lower-case letters, digits and underscores.
// Keywords do, so anything but the usual name is quoted.
func isPlainIdentifier(s string) bool {
	return s == "pgweir" || strings.HasPrefix(s, "pgweir_") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// runSetupSQL prints the script.
func runSetupSQL(_ context.Context, args []string, _ io.Reader, stdout, _ io.Writer) error {
	fs := newFlagSet("setup-sql", "[--user NAME] [--promote]")
	promote := fs.Bool("promote", false, "add the rights that promotion by pgweir needs (PostgreSQL 15 and later)")
	role := fs.String("user", "pgweir", "the `name` of the monitor's role")
	if err := parseFlags(fs, args, 0, stdout); err != nil {
		return err
	}
	script, err := setupSQL(*role, *promote)
	if err != nil {
		return &usageError{"setup-sql: " + err.Error()}
	}
	_, err = io.WriteString(stdout, script)
	return err
}
