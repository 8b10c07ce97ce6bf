// Package schema has the two migrations of the programs, as tools that migrate with files of SQL want them.
package schema

import (
	"embed"
	"io/fs"
)

//go:embed *.sql goose/*.sql
var files embed.FS

// Pairs are files like 001_initial.up.sql and 001_initial.down.sql.
func Pairs() fs.FS { return files }

// Goose is a directory with goose's files, which hold both ways.
func Goose() (fs.FS, error) { return fs.Sub(files, "goose") }
