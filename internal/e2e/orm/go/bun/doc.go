// Command bun shows what bun does through a proxy, with its own driver: its migrations, models and transactions, on
// database/sql's pool of ten.
package main
