package health

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// line is what the cluster's one history is known by: the newest timeline that was accepted.
type line struct {
	System   uint64
	Timeline uint32
	Fork     lsn    // where the timeline before it ended, 0 if unknown or none
	Node     string // address of the node that was accepted as its primary
	Flushed  lsn    // furthest flush position seen of that node on this timeline
	primary  int    // ID of that node, 0 while it is not among the nodes
}

// known says whether there is a line at all.
func (l line) known() bool { return l.Node != "" }

// standing is how a writable node stands to the line.
type standing uint8

// The standings.
const (
	standsNot        standing = iota // not writable, or nothing is known
	standsIncumbent                  // the accepted primary itself
	standsDescends                   // rule 3 accepts it
	standsUnproven                   // rule 3 does not, and it was never a member, or lost what it had
	standsFork                       // a member on the same timeline, or on one that did not come from ours
	standsBelow                      // on a timeline that is over (rule 5)
	standsForeign                    // another system identifier
	standsQuarantine                 // taken out by a person
)

// partialRecord is how much of what a standby received may lie behind the last record whose end it
// received too: promotion cuts that piece off, and nothing in it was ever visible or acknowledged.
const partialRecord = 1 << 20

// standsAs is a standing with its reason in words and where the candidate left the line.
type standsAs struct {
	standing standing
	why      string
	fork     lsn
}

// judge applies rule 3 to a writable node. streams says whether a majority of the configured nodes
// streams from it, busy whether the line's primary is or may be writable still.
func judge(f *facts, l line, streams, busy bool) standsAs {
	o := f.obs
	switch {
	case !o.writable():
		return standsAs{}
	case f.manual:
		return standsAs{standing: standsQuarantine, why: "quarantined by QUARANTINE"}
	case f.outvoted:
		return standsAs{standing: standsQuarantine, why: "quarantined: ACCEPT chose another node while this one was writable"}
	case l.System != 0 && o.system != 0 && o.system != l.System:
		return standsAs{standing: standsForeign, why: fmt.Sprintf(
			"has system identifier %d, the cluster %d; ADOPT CLUSTER accepts the other one", o.system, l.System)}
	case o.timeline < l.Timeline && o.timeline != 0:
		return standsAs{standing: standsBelow, why: fmt.Sprintf(
			"quarantined: writable on timeline %d, the cluster is on %d", o.timeline, l.Timeline)}
	case f.id == l.primary && (o.timeline == l.Timeline || o.timeline == 0):
		return standsAs{standing: standsIncumbent}
	case o.timeline == l.Timeline || o.timeline == 0:
		return judgeSame(f, l, busy)
	}
	return judgeHigher(f, l, streams)
}

// judgeSame looks at a second writable node on the line's own timeline: a rival while the primary
// lives, the same data under another address once it does not (shared storage).
func judgeSame(f *facts, l line, busy bool) standsAs {
	o := f.obs
	switch {
	case (busy || f.rival) && f.member:
		return standsAs{standing: standsFork, why: fmt.Sprintf("writable on timeline %d beside its primary", l.Timeline)}
	case busy || f.rival:
		return standsAs{standing: standsUnproven, why: fmt.Sprintf(
			"unproven: writable on timeline %d beside its primary and never seen as a standby of it", l.Timeline)}
	case o.flush != 0 && o.flush < l.Flushed:
		return standsAs{standing: standsUnproven, why: fmt.Sprintf(
			"unproven: stands at %s on timeline %d, which had reached %s", o.flush, l.Timeline, l.Flushed)}
	}
	return standsAs{standing: standsDescends, fork: l.Fork}
}

// judgeHigher looks at a writable node on a higher timeline than the line's.
func judgeHigher(f *facts, l line, streams bool) standsAs {
	o := f.obs
	if !o.forks {
		return judgeUnread(f, l, streams)
	}
	end, ok := o.forkOf(l.Timeline)
	if !ok {
		why := fmt.Sprintf("timeline %d did not come from timeline %d", o.timeline, l.Timeline)
		if f.member {
			return standsAs{standing: standsFork, why: why}
		}
		return standsAs{standing: standsUnproven, why: "unproven: " + why}
	}
	if !f.member && !streams {
		return standsAs{standing: standsUnproven, fork: end, why: "unproven: was never seen as a standby of this cluster, and no majority streams from it; ACCEPT accepts it"}
	}
	if f.replayed.Timeline == l.Timeline && end < f.replayed.Position {
		return standsAs{standing: standsUnproven, fork: end, why: fmt.Sprintf(
			"unproven: left timeline %d at %s, after it had replayed up to %s; ACCEPT accepts it", l.Timeline, end, f.replayed.Position)}
	}
	if f.received.Timeline == l.Timeline && end+partialRecord < f.received.Position {
		return standsAs{standing: standsUnproven, fork: end, why: fmt.Sprintf(
			"unproven: left timeline %d at %s, after it had received up to %s; ACCEPT accepts it", l.Timeline, end, f.received.Position)}
	}
	return standsAs{standing: standsDescends, fork: end}
}

// judgeUnread looks at a higher timeline whose history is not read, or not yet. A server that was
// seen as a standby on the line and has not been restarted since needs no history: while it runs, its
// timeline only moves to descendants, and promotion replays whatever it has received. Otherwise, where
// the monitor lacks REPLICATION, the last checkpoint's word or what was seen earlier must do.
func judgeUnread(f *facts, l line, streams bool) standsAs {
	o := f.obs
	switch {
	case f.server == o.start && f.serverOn == l.Timeline,
		(f.member || streams) && o.previous == l.Timeline,
		f.watched && f.received.Timeline == l.Timeline && (o.flush == 0 || o.flush >= f.replayed.Position):
		return standsAs{standing: standsDescends}
	}
	return standsAs{standing: standsUnproven, why: fmt.Sprintf(
		"unproven: the history of timeline %d could not be read (the monitor lacks REPLICATION); ACCEPT accepts it", o.timeline)}
}

// parseHistory reads a timeline history file (Continuous Archiving, "Timelines"): one line an
// ancestor, its number and where it ended; comments and empty lines are skipped.
func parseHistory(content []byte) ([]fork, error) {
	var forks []fork
	for sc := bufio.NewScanner(bytes.NewReader(content)); sc.Scan(); {
		text := strings.TrimSpace(sc.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields := strings.Fields(text)
		if len(fields) < 2 {
			return nil, fmt.Errorf("read timeline history: line %q has no position", text)
		}
		tli, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %w", err)
		}
		end, err := parseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("read timeline history: %w", err)
		}
		if n := len(forks); n > 0 && forks[n-1].timeline >= uint32(tli) {
			return nil, fmt.Errorf("read timeline history: timeline %d follows %d", tli, forks[n-1].timeline)
		}
		forks = append(forks, fork{uint32(tli), end})
	}
	return forks, nil
}
