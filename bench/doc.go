// Command bench answers the question: what does pgweir cost beside the proxies that people know?
//
// It brings up a primary and two streaming standbys of PostgreSQL 15 with internal/localpg, and in
// front of them, each as its own process on loopback, PgBouncer, HAProxy (TCP mode), Pgpool-II (in
// the full run) and pgweir, built from this tree and started with `serve -c` and everything on:
// routing, application consistency, metrics. Then it drives each of them in turn with the same
// load and counts the processor time (user and system) that the proxy's processes took, children
// included, for each transaction. The load generator's own time is not counted.
//
// # Run
//
//	go run ./bench -quick              about three minutes: three rows, memory, classifier
//	go run ./bench -o bench/RESULTS.md all rows, Pgpool-II and pgweir on all processors as well
//	go run ./bench -quick -check       exit status 1 when a bound of check.go does not hold
//	go run ./bench -only 'prepared'    rows whose name matches, nothing else
//
// It runs on Linux (the figures come from /proc). Under root, servers and proxies run as the user
// "postgres". PGBOUNCER, HAPROXY and PGPOOL name other programs than those of the PATH. What is not
// installed is left out and named; PgBouncer must be there, everything is compared with it.
// Nothing is written into the tree without -o, and all processes and files are gone at the end.
//
// # Read
//
// Throughput and latency of a shared machine swing by a factor of two; processor time for each
// transaction hardly does. So compare only inside one run: candidates go in turn, the order turns
// with the rounds. A cell is the median of the rounds with minimum and maximum in brackets. A ratio
// is the median over the rounds of (candidate ÷ PgBouncer in the same round): below 1 is cheaper.
// The clients' logins are part of what is counted; they are less than one in a hundred.
//
// PgBouncer and HAProxy stand before the primary; pgweir and Pgpool-II before all three nodes, and
// spread reads. pgweir's counters say which share of a row the standbys answered; before the first round
// these counters are compared with what the nodes themselves say. PgBouncer is in transaction mode but for one row: prepared statements need its session mode
// before version 1.21, and the row says so.
//
// Memory is the resident set after N clients logged in, ran one query and went idle, less that of
// the same process before, divided by N, each time with a fresh process. pgweir pools by session, so
// its figure contains a connection to a node for each client; PgBouncer's does not.
//
// The classifier's figures come from the benchmark of package router: the fastest of five runs, which
// is the one that other processes disturbed least.
package main
