// Package e2e answers, in tests only: is what a client sees through pgweir what it would see on
// the primary, with real servers on one side and real drivers on the other?
//
//   - Parity: the scripts of testdata/parity, which speak both protocols message by message, run
//     straight against the primary and through pgweir, and what came back is compared. Before
//     that each runs straight twice, which proves that it is deterministic.
//   - Drivers: one self-checking program for each driver in drivers/, first straight against the
//     primary, then through pgweir.
//   - ORMs and migration tools: a small program for each in orm/, with the primary killed in the middle. It runs
//     with `make orm` only and makes the table of the README.
//   - Failover, routing and several clusters on nodes that are really killed.
//   - Several processes for the same clients, whose cancel requests come to any of them.
//   - The demo, as a user would start it.
//
// Which node answered is asked of the nodes (node_port(), pg_stat_statements), never of pgweir.
//
// The servers come from internal/localpg, so `make matrix` runs the package on every supported
// version of PostgreSQL. The proxy is the program itself: it is built once and started as
// `pgweir serve -c`, or taken from $PGWEIR_BIN.
package e2e
