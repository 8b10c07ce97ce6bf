// Package pool answers how a connection to a node is got and given back. It never sees a client.
//
// A pool is what all sessions of one user on one database share of one node: (cluster, node,
// entry, database, user), where the entry is the name that clients ask for. Connections in it differ by their startup key: a lease is only given to a
// session whose [Key] is the same altogether, and where the pool is full of idle connections
// with other startup keys the one unused longest makes room.
//
//	          Get: new                         Put, Dirty: DISCARD ALL
//	(slot) ───────────▶ opening ──login──▶ leased ───────────────────▶ idle
//	                      │                 │  ▲                        │ │
//	                      │ error           │  └────── Get: newest first┘ │ too old, dead,
//	                      ▼                 ▼ Drop, failed reset, retired ▼ retired
//	                   (slot free) ◀──── closed ◀──────────────────────────
//
// Whoever finds no slot free waits, first come first served, until its context or its [Patience] ends. The pools of one node share
// a lock, because they share limits: where one is reached ([Limits.MaxDatabase], [Limits.MaxUser]) idle connections of the
// others make room, those unused longest first. A connection that is given back goes to its own pool's
// waiters, unless somebody has waited longer in a pool that has none at all. Nothing is
// sent, received or closed while a lock is held, and no two locks of this package are ever held
// together.
//
// A lease belongs to the goroutine that got it, socket included, until Put or Drop. [Pool.Break]
// alone reaches into one: it closes the socket, so that its owner's next read or write fails.
//
// login.go is the whole way from an address to ReadyForQuery: TLS by libpq's words, StartupMessage, SCRAM with a
// key or a password, and everything that the node says on the way. What a node may send
// before it is ready is bounded, in time and bytes.
package pool
