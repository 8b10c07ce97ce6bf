package health

import (
	"context"
	"log/slog"
	"time"
)

// EventKind is what kind of thing happened; the list is closed.
type EventKind string

// The kinds of events.
const (
	EventPrimaryChanged EventKind = "primary_changed" // another node, or another timeline, takes the writes
	EventFork           EventKind = "line_forked"     // where the accepted timeline left the one before it
	EventPrimaryLost    EventKind = "primary_lost"    // writes are held
	EventPrimaryBack    EventKind = "primary_back"    // the same primary takes writes again
	EventSplitBrain     EventKind = "split_brain"
	EventSplitBrainOver EventKind = "split_brain_over"
	EventUnconfirmed    EventKind = "primary_unconfirmed"
	EventConfirmed      EventKind = "primary_confirmed"
	EventQuarantined    EventKind = "quarantined" // a writable node on a timeline that is over, or by a person
	EventUnproven       EventKind = "unproven"    // a writable node that rule 3 does not accept
	EventForeign        EventKind = "foreign"     // a node of another cluster
	EventNodeDown       EventKind = "node_down"
	EventNodeUp         EventKind = "node_up"
	EventNodeAdded      EventKind = "node_added"
	EventNodeLeft       EventKind = "node_left"
	EventNodeForgotten  EventKind = "node_forgotten"
	EventSeveral        EventKind = "several_servers" // an address that answers for several servers
	EventOrder          EventKind = "order"           // what a person ordered: DRAIN, ACCEPT …
	EventMemory         EventKind = "memory"          // the memory could not be written
	EventCapability     EventKind = "capability"      // something that a node cannot be asked
)

// Event is one thing that happened to the cluster, in words.
type Event struct {
	At   time.Time
	Kind EventKind
	Node string // "" when it concerns the cluster
	Text string
}

// eventsKept is how many events the ring holds.
const eventsKept = 100

// alarming says whether somebody should look.
func (k EventKind) alarming() bool {
	switch k {
	case EventPrimaryLost, EventSplitBrain, EventUnconfirmed, EventQuarantined, EventUnproven, EventForeign,
		EventNodeDown, EventSeveral, EventMemory:
		return true
	}
	return false
}

// log writes e where the process logs.
func (e Event) log(log *slog.Logger) {
	level := slog.LevelInfo
	if e.Kind.alarming() {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("event", string(e.Kind)), slog.String("detail", e.Text)}
	if e.Node != "" {
		attrs = append(attrs, slog.String("node", e.Node))
	}
	log.LogAttrs(context.Background(), level, "cluster event", attrs...)
}
