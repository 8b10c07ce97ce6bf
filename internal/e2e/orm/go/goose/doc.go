// Command goose shows what goose does through a proxy, in front of an application on database/sql with pgx.
package main
