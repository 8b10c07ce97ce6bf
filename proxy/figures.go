package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"pgweir/health"
	"pgweir/router"
)

// Usage is what the sessions of one database name have done since the process started.
type Usage struct {
	Transactions  uint64 // those in which anything was run on a node
	Queries       uint64 // units that were run on a node
	Received      uint64 // bytes from clients
	Sent          uint64 // bytes to clients
	InTransaction time.Duration
	InQuery       time.Duration
	Waited        time.Duration // for a connection to a node
}

// add adds another usage.
func (u *Usage) add(o Usage) {
	u.Transactions += o.Transactions
	u.Queries += o.Queries
	u.Received += o.Received
	u.Sent += o.Sent
	u.InTransaction += o.InTransaction
	u.InQuery += o.InQuery
	u.Waited += o.Waited
}

// figures is what others may see of a session while it runs. Its goroutine alone writes, so that no
// statement waits for a reader or for another session; what it has counted is published once a transaction.
type figures struct {
	since   int64                  // health.Clock() at the login
	request atomic.Int64           // … when the last unit came that went to a node; 0 before
	waiting atomic.Int64           // … since when it waits for a connection; 0 when it does not
	got     atomic.Int64           // … when the last such wait was over
	holding atomic.Bool            // it holds a connection or is about to get one
	cancels atomic.Int32           // cancel requests of its client that are on their way to a node
	name    atomic.Pointer[string] // application_name, as its client was told; nil before
	pin     atomic.Int32           // router.Pin
	pinned  atomic.Int64           // health.Clock() when it was

	published struct {
		sync.Mutex
		Usage
	}

	// Only of the session's goroutine.
	counted Usage
	txBegan int64 // health.Clock() when the first unit of the transaction was sent
	ran     bool  // a unit was run in it
}

// waits says that the session waits for a connection from now on, and returns when that is.
func (f *figures) waits() int64 {
	now := health.Clock()
	f.waiting.Store(now)
	return now
}

// served ends a wait.
func (f *figures) served(began int64) {
	now := health.Clock()
	f.counted.Waited += time.Duration(now - began)
	f.got.Store(now)
	f.waiting.Store(0)
}

// shows publishes another pin.
func (f *figures) shows(p router.Pin) {
	f.pinned.Store(health.Clock())
	f.pin.Store(int32(p))
}

// count takes an answered chunk into the figures, and publishes them where a transaction ends.
func (s *session) count(c *chunk, sentAt, now int64) {
	f := &s.figures
	if f.txBegan == 0 {
		f.txBegan = sentAt
	}
	if c.executes {
		f.counted.Queries++
		f.counted.InQuery += time.Duration(now - sentAt)
		f.ran = true
	}
	if s.st.tx != txIdle || s.batch != nil {
		return
	}
	if f.ran {
		f.counted.Transactions++
		f.counted.InTransaction += time.Duration(now - f.txBegan)
	}
	f.txBegan, f.ran = 0, false
	s.publish()
}

// publish shows others what was counted.
func (s *session) publish() {
	f := &s.figures
	f.counted.Received, f.counted.Sent = s.client.Received(), s.client.Written()
	f.published.Lock()
	f.published.Usage = f.counted
	f.published.Unlock()
}

// usage is what was published last.
func (f *figures) usage() Usage {
	f.published.Lock()
	defer f.published.Unlock()
	return f.published.Usage
}
