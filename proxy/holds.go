package proxy

import (
	"container/list"
	"sync"
)

// holds bounds how many statements wait for a primary: when there are too many, the one that
// has waited longest gives up.
type holds struct {
	limit int
	mu    struct {
		sync.Mutex
		waiting *list.List
	}
}

// held is one waiting statement; evicted is closed when it must give up.
type held struct {
	evicted chan struct{}
	at      *list.Element
}

// newHolds takes up to limit statements.
func newHolds(limit int) *holds {
	h := &holds{limit: limit}
	h.mu.waiting = list.New()
	return h
}

// enter adds a statement.
func (h *holds) enter() *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.waiting.Len() >= h.limit {
		oldest := h.mu.waiting.Front()
		h.mu.waiting.Remove(oldest)
		close(oldest.Value.(*held).evicted)
	}
	e := &held{evicted: make(chan struct{})}
	e.at = h.mu.waiting.PushBack(e)
	return e
}

// leave removes a statement; one that was evicted is gone already.
func (h *holds) leave(e *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.waiting.Remove(e.at)
}
