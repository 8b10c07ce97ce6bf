package proxy

import "testing"

// TestRest: a session gives back what it works with when nothing runs any more, and nothing of its own with it.
func TestRest(t *testing.T) {
	for _, c := range []struct {
		what  string
		state func(s *session)
		gives bool
	}{
		{"idle", func(*session) {}, true},
		{"in a transaction", func(s *session) { s.st.tx = txOpen }, false},
		{"in a failed transaction", func(s *session) { s.st.tx = txFailed }, false},
		{"in a batch", func(s *session) { s.batch = new(lease) }, false},
		{"up to a Sync", func(s *session) { s.skipping = true }, false},
		{"the node up to a Sync", func(s *session) { s.work.relay.skipping = true }, false},
	} {
		s := new(session)
		s.st.tx = txIdle
		w := s.wake()
		w.scratch = make([]byte, maxText)
		w.chunk.items = append(make([]item, 0, keptEntries+1), item{})
		w.sent, w.ahead.sql = append(w.sent, definition{name: "a"}), "SET x TO 1"
		w.relay.queue = append(w.relay.queue, expectation{name: "a"})
		c.state(s)
		s.rest()
		equal(t, c.what, s.work == nil, c.gives)
		if !c.gives {
			equal(t, c.what, len(w.sent), 1)
			continue
		}
		equal(t, "a long text", cap(w.scratch), 0)
		equal(t, "many messages", cap(w.chunk.items), 0)
		equal(t, "what went ahead", w.ahead.sql, "")
		equal(t, "entries", len(w.sent)+len(w.relay.queue), 0)
		equal(t, "what they referred to", w.sent[:1][0].name+w.relay.queue[:1][0].name, "")
	}
}
