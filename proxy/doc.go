// Package proxy answers: what happens between a client's socket and the node that answers it?
//
// # Life of a connection
//
//	accept → negotiate (TLS, Cancel) → login → session.run → done
//	                                              │
//	          ┌───────────────────────────────────┘
//	          ▼
//	  collect   one chunk: a simple query, or a batch up to Sync or Flush (batch.go)
//	  answer    what needs no node: a deferred BEGIN, pgweir.*, a lost transaction (answer.go)
//	  place     router.Route decides; waits for a fresh standby or a primary (place.go, hold.go)
//	  prepare   the lease gets the session's settings and shapes are checked (lease.go, shape.go)
//	  compose   what goes in front of the client's bytes: BEGIN, statements (compose.go)
//	  exchange  write, then forward what is owed until nothing is (exchange.go, relay.go)
//	  settle    transaction, marks, pins, statements; or again elsewhere, or an error
//
// A CancelRequest is carried out here, or passed on to the process that its key names (cancel.go, peers.go).
//
// A batch without an end in sight and a COPY FROM STDIN go through a duplex exchange, in which a
// second goroutine relays while the session's own sends (duplex.go). A replication connection
// is a tunnel (tunnel.go).
//
// # Who owns what
//
// One goroutine runs a session and owns its client link, its leases and its state. It lends
// the reading side of a lease to a watch while it waits for the client (watch.go), and to the
// relay of a duplex exchange; it takes it back by a deadline in the past and waits for the
// goroutine's end. What other goroutines may touch are session.running and session.canceled
// (a CancelRequest), deadlines of the client's link (drain, Cut), and Close of a lease's link. A
// client that is silent for a while has no goroutine until it speaks again (park.go).
//
// A chunk's bytes stay in the client link's buffer until the chunk is settled, so that it can be
// sent again as long as the client has seen no byte of an answer.
//
// Locks are leaves: none is held while another is taken, while something is written to a socket, or while a
// callback runs. relay.mu orders the two goroutines of a duplex exchange.
package proxy
