// Package health answers the question: which nodes of a cluster may take traffic now, as what, and
// what has each of them seen?
//
// A [Monitor] watches one cluster. It asks every node over connections of its own, decides by
// rules over what they answered, and shows the outcome as an immutable [Snapshot]. Beside it stands
// the cluster's [Fence], which says how much of what clients were told each standby has replayed.
//
// # Who asks what
//
// Each node has three loops that never wait for each other or for another node:
//
//   - probes: one round trip each probe.interval that asks for role, system identifier, timeline,
//     positions, receiver and settings. Only probes change a role. Traffic that meets a refused
//     connection, an end of file, a shutdown or a 25006 reports it ([Monitor.Report]), which makes
//     a probe start at once.
//   - samples: a cheap question about positions, each sampling.min_interval while somebody waits
//     ([Fence.Demand]), else each probe.interval on the primary and each probe.standby_interval on
//     a standby. A sample that contradicts the role is followed by a probe on the spot, which is
//     how a promotion is seen.
//   - new connections, each probe.fresh_interval: a hung postmaster looks healthy over old ones.
//
// # States
//
//	             answer                misses                fall misses
//	unknown ─────────────────▶ up ────────────▶ suspect ─────────────────▶ down
//	   │                      ▲ │ ▲   answer       │                        │
//	   │ fall misses          │ │ └────────────────┘      rise answers      │
//	   └──────────▶ down      │ ├──▶ lagging (standby: beyond max_lag, or   │
//	                          │ │     not on the line's timeline)           │
//	                          │ └──▶ draining (DRAIN, or left the list)     │
//	                          └─────────────────────────────────────────────┘
//
// up takes work; lagging and draining take no new reads; suspect takes nothing new, and what runs
// goes on; the leases of a node that is down are closed. A refused connection counts double, so
// that two of them are enough. A login that fails, a full server (53300), a name that is not found
// and a probe's connection that was terminated (57P01) are no evidence of death.
//
// # Trust
//
// A role rests on evidence with an age: the time since the newest answered probe or sample was
// sent, by a monotonic clock. Older than trust_window it is no evidence ([Node.Trusted] is false):
// nothing new is sent there, and [Monitor.Changed] is closed by the answer that ends it. Because
// the clock goes on while the process does not, a stop of the process voids everything by itself.
// A reply that took longer than the window is dropped.
//
// # Which node is the primary
//
// A cluster has one line: a system identifier and the newest timeline that was accepted. By it,
// each writable node has a standing:
//
//	standing     what it is                                            what it gets
//	incumbent    the accepted primary, on the accepted timeline        writes
//	descends     was a standby of the line and left it at or after     becomes the primary: new
//	             the furthest position it was seen to have; or a       epoch, remembered before
//	             majority of the nodes streams from it                 the first write
//	unproven     left before that, or was never seen as a standby      nothing, until ACCEPT
//	fork         a member whose timeline did not come from the line's, nothing; with another
//	             or that is writable on it beside its primary          writable member: split brain
//	below        on a timeline that is over                            nothing (quarantined), until
//	                                                                   it returns as a standby
//	foreign      has another system identifier                         nothing, until ADOPT CLUSTER
//	quarantined  a person said so                                      nothing, until ACCEPT
//
// Of several that descend the one on the highest timeline is taken, if the others are in its
// history; otherwise, and with forks, nobody is written to. Writes are also held while a standby
// follows a timeline above the line's (a newer primary exists that does not answer here), and, with
// primary.require: peers, while neither a majority of the hosts answers nor a standby receives.
//
// The line, its fork point, and how far each node was seen to receive are kept in state_dir.
// Without such memory a primary is accepted when a majority of the nodes has answered and none
// knows a higher timeline, or after startup.grace ([Snapshot.Unconfirmed]). The rules are one
// function over what is known, so two proxies that see the same decide the same.
//
// # Freshness
//
// Every sample request takes the next number of one counter; a session remembers the counter's
// value for each reply ([Fence.Mark]). What the primary reports to request n covers every write
// acknowledged with a mark below n; a standby at or beyond that position is fresh as of n
// ([Freshness]). The position is the flush position, or the insert position while somebody may
// commit with synchronous_commit off. Freshness belongs to an incarnation of a node: it is void
// when a connection of the monitor ends unasked or a lease does ([Monitor.VoidNode]), until a
// sample requested after that.
//
// # Capabilities
//
// What a server can be asked is found out at first contact. The monitor's role needs pg_monitor.
//
//	missing                  what happens instead
//	WAL positions            Snapshot.Positions is false: freshness is timed, lag is not measured
//	pg_stat_wal_receiver     a standby's timeline comes from its control file, at the last restart
//	                         point; a majority that streams cannot be seen
//	pg_control_system        nodes of another cluster are not recognised
//	REPLICATION              timeline histories cannot be read: a promotion is accepted when this
//	                         process saw the node as a standby before, or its last checkpoint names
//	                         the timeline it came from
//	pg_current_snapshot      reads on the primary after reads on a standby are never proven
//	pg_db_role_setting       the insert position is the fence
package health
