// Package console answers what an administrator asks of a running proxy in SQL, and carries out what he orders.
//
//	text ──Read──▶ Command ──Run──▶ Result        SHOW, WHO, HELP: a Source's State, made into rows
//	        │                                     everything else: an Order, carried out by a Control
//	        └─▶ *Error: not understood, or not for this role
//
// Where a table is PgBouncer's, its columns have the names, the types and the order of PgBouncer 1.18, and what later
// versions or old exporters want stands behind them. What a row stands for is PgBouncer's, too: a database
// name as clients ask for it, or such a name and a user, summed over nodes. Tables of our own
// may have a row for each node.
//
// The package neither speaks the protocol nor knows the proxy: both are wired by package main.
package console
