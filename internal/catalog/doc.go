// Package catalog answers: what does a database say about its names?
//
// It reads pg_proc, pg_class, pg_rewrite and their kin over a connection of its own, in one
// REPEATABLE READ READ ONLY transaction, and fills the view that package router declares:
// for every function and relation whether any node may answer it, whether it can leave
// state in the session (opaque), whether it may call nextval. The view is immutable and
// swapped as a whole.
//
// # Life of a database's view
//
//	          Load                       read                      nobody asked for IdleAfter
//	(absent) ──────▶ loading ─────────────────────────▶ current ─────────────────────────▶ asleep
//	                  │  ▲                               │  ▲                                 │
//	   no such        │  │ error: again after a pause    │  │ timer, Invalidate, Missed,      │ View, Load
//	   database       ▼  │ (the old view, if any, stays) ▼  │ Reset                           │
//	                (absent)                            reading ◀──────────────────────────────┘
//
// # How a verdict is found
//
// Functions, reading a relation, writing a relation, types and names in bodies are the nodes
// of one graph. An edge says that using one can use the other. Opaque, nextval and currval
// travel along every edge; the verdict of a function is its own declared volatility (and
// that of its parameters' defaults), as PostgreSQL itself believes it, so it does not travel
// out of bodies; the verdict of a relation is the worst of everything its rule, its
// partitions and its policies read.
//
// Expressions that the server keeps parsed (rules, policies, defaults, constraints,
// BEGIN ATOMIC bodies) are read from their pg_node_tree text, which names functions and
// relations by oid: exact. Bodies kept as text are scanned for names; a bare name there
// stands for every function or relation of that name in any schema, because the path it
// will run with is not known. That can only make a verdict more careful. What text does not
// name is not followed: attribute notation (t.f for f(t)), casts other than "::", functions
// of operator classes and text search.
//
// # Rights
//
// Everything that is read is readable by PUBLIC in a database as initdb makes it; the role
// needs CONNECT and nothing else, not even pg_monitor. What is lost without more:
//   - pg_settings hides settings of GUC_SUPERUSER_ONLY: current_setting of one inside a view
//     counts as node-local.
//   - if the reading role has a default_transaction_isolation of its own, the server's
//     configured one is hidden behind it and taken to be serializable.
//
// Where SELECT on one of these catalogs was revoked, reading fails as a whole and the
// database has no view: everything in it goes to the primary.
package catalog
