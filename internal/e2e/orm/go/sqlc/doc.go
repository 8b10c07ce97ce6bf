// Command sqlc shows what pgx does through a proxy where it is used as sqlc uses it: queries.go has the shape of what
// sqlc generates, on pgxpool's pool of ten, which prepares every statement and caches it. sqlc leaves migrations to
// others: the files are run as they are.
package main
