// Command gorm shows what GORM does through a proxy: its migrator, models and transactions, on database/sql's pool of ten.
package main
