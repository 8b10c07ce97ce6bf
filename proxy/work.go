package proxy

import "sync"

// work is what a session needs only while something runs: from the first byte of a chunk to the end of its transaction
// and batch. Clients are idle most of the time.
type work struct {
	relay   relay
	chunk   chunk
	ahead   prelude // what goes in front of the chunk
	scratch []byte
	plan    []planned    // what the lease has, as of all that was sent in this batch
	sent    []definition // what the client has defined in this batch
	pending []definition // what the node has completed and settle makes the session's
}

// works are those that no session uses.
var works = sync.Pool{New: func() any { return new(work) }}

// keptEntries is how many entries each list of an unused work has room for at most.
const keptEntries = 64

// wake gives the session what it works with, if it has none.
func (s *session) wake() *work {
	if s.work == nil {
		s.work = works.Get().(*work)
	}
	return s.work
}

// relaying is the session's relay.
func (s *session) relaying() *relay { return &s.wake().relay }

// rest gives back what the session works with, between transactions and batches.
func (s *session) rest() {
	w := s.work
	if w == nil || s.st.tx != txIdle || s.batch != nil || s.skipping || w.relay.skipping {
		return
	}
	scratch := w.scratch[:0]
	if cap(scratch) > 2*maxChunk {
		scratch = nil
	}
	*w = work{
		relay: relay{queue: emptied(w.relay.queue), effects: emptied(w.relay.effects)},
		chunk: chunk{items: emptied(w.chunk.items)},
		plan:  emptied(w.plan), sent: emptied(w.sent), pending: emptied(w.pending), scratch: scratch,
	}
	works.Put(w)
	s.work = nil
}

// emptied is an empty list that refers to nothing, in the room of list unless that is large.
func emptied[E any](list []E) []E {
	if cap(list) > keptEntries {
		return nil
	}
	clear(list[:cap(list)])
	return list[:0]
}
