package health

import "fmt"

// The orders of people (failover.md, rule 5 and "Topologies to serve"). Each is an event; they
// take effect with the next snapshot, which follows at once.

// Drain takes a node out: no new reads, what runs may finish. Writes go on if it is the primary.
func (m *Monitor) Drain(node string) error {
	return m.order(node, "DRAIN", func(_ *book, f *facts) error { f.drained = true; return nil })
}

// Undrain puts a drained node back.
func (m *Monitor) Undrain(node string) error {
	return m.order(node, "UNDRAIN", func(_ *book, f *facts) error { f.drained = false; return nil })
}

// Quarantine takes a node out altogether, until Accept: neither reads nor writes, and what it says
// about the cluster does not count. It survives a restart.
func (m *Monitor) Quarantine(node string) error {
	return m.order(node, "QUARANTINE", func(b *book, f *facts) error { f.manual, b.dirty = true, true; return nil })
}

// Accept says that a writable node is the cluster's primary, whatever the rules make of it: its
// timeline becomes the line, even one that others have left for a higher one, and other nodes that are writable now are quarantined until they come
// back as standbys. Of a standby it lifts the quarantine.
func (m *Monitor) Accept(node string) error {
	return m.order(node, "ACCEPT", func(b *book, f *facts) error { return b.ordain(f, Clock()) })
}

// ordain makes f the primary by a person's word.
func (b *book) ordain(f *facts, now int64) error {
	switch {
	case f.obs == nil || !f.trusted(now, b.cfg.TrustWindow):
		return fmt.Errorf("node %s does not answer now", f.cfg.name())
	case b.line.System != 0 && f.obs.system != b.line.System:
		return fmt.Errorf("node %s has system identifier %d, the cluster %d; ADOPT CLUSTER accepts that", f.cfg.name(), f.obs.system, b.line.System)
	}
	f.manual, f.outvoted, f.rival = false, false, false
	b.dirty = true
	if f.obs.recovery {
		return nil
	}
	for _, o := range b.nodes {
		if o != f && o.obs.writable() {
			o.outvoted = true
		}
		if o.obs != nil && o.obs.timeline > f.obs.timeline {
			o.member = false // whatever it follows is not this cluster's line, by the person's word
		}
		// What the others received is measured against this line from now on.
		if o.received.Timeline >= f.obs.timeline {
			o.received, o.replayed = mark{}, mark{}
		}
	}
	b.ordained = f.id
	return nil
}

// AdoptCluster forgets the line, for a cluster that has a new system identifier after pg_upgrade or
// a restore: the next primary is found as at the first start.
func (m *Monitor) AdoptCluster() error {
	m.mu.Lock()
	b := m.mu.book
	b.line, b.pending, b.dirty = line{}, false, true
	b.since = Clock()
	m.mu.savedAt = 0
	clear(b.absent)
	for _, f := range b.nodes {
		f.member, f.watched, f.rival, f.outvoted = false, false, false, false
		f.received, f.replayed = mark{}, mark{}
	}
	m.mu.Unlock()
	m.tell([]Event{{Kind: EventOrder, Text: "ADOPT CLUSTER"}})
	signal(m.kick)
	return nil
}

// Forget makes a node that left the configuration or the discovery count for the majority no more.
func (m *Monitor) Forget(node string) error {
	m.mu.Lock()
	f := m.mu.book.named(node)
	switch {
	case f == nil:
		m.mu.Unlock()
		return unknownNode(node)
	case f.gone == 0:
		m.mu.Unlock()
		return fmt.Errorf("node %s is still configured or discovered", node)
	}
	m.mu.book.forget(f)
	m.mu.Unlock()
	m.forgotten([]*facts{f})
	signal(m.kick)
	return nil
}

// order carries out an order about one node.
func (m *Monitor) order(node, word string, do func(*book, *facts) error) error {
	m.mu.Lock()
	f := m.mu.book.named(node)
	if f == nil {
		m.mu.Unlock()
		return unknownNode(node)
	}
	err := do(m.mu.book, f)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s %s: %w", word, node, err)
	}
	m.tell([]Event{{Kind: EventOrder, Node: node, Text: word}})
	signal(m.kick)
	return nil
}

// unknownNode is the error for a name that no node has.
func unknownNode(node string) error { return fmt.Errorf("no node is named %q", node) }
