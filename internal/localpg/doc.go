// Package localpg answers the question: how do I get a real PostgreSQL cluster on this machine,
// and how do I hurt it? The demo, the tests and the benchmarks stand on it.
//
// A [Cluster] is one primary and any number of streaming standbys, made by [New] from a directory
// of server binaries ([Find], [At]) of any major version, in a directory of its own, on loopback
// ports and a private Unix socket directory. The servers are children of this process: they end
// with [Cluster.Close], and also when this process dies without calling it.
//
// A [Node] moves between these states:
//
//	             Start                 Pause
//	stopped ───────────────▶ running ─────────▶ paused
//	   ▲    ◀─────────────── │  ▲  ◀─────────
//	   │      Stop, Kill9    │  │     Resume
//	   │      or a crash     │  │
//	   │                     ▼  │ Promote, Follow, PauseReplay, ResumeReplay
//	   └── Rewind, Reclone ─────┘ (the stopped node comes back as a standby)
//
// Whether a running node is the primary or a standby is not remembered here: it is asked of the
// node each time ([Node.InRecovery], [Cluster.Primary]), because promotion is what is being tried.
//
// A [Supervisor] is the small cluster manager of the demo: it promotes the standby that received
// most when the primary dies, points the others at it and brings the old one back as a standby.
//
// PostgreSQL refuses to run as root, so under root every program is started as the user
// "postgres" (see [Config.RunAs]) and the directories belong to that user.
//
// Methods of a Cluster and of its Nodes may be called from several goroutines, but two moves of
// the same node at once are refused or wait for each other; nothing of it is fast.
package localpg
