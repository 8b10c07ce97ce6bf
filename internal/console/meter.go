package console

import (
	"context"
	"sync"
	"time"
)

// meter remembers what databases had done at the ends of the last two periods.
type meter struct {
	mu struct {
		sync.Mutex
		before, last sample
	}
}

// sample is what every database had done at a time.
type sample struct {
	at    time.Time
	usage map[string]Usage
}

// run takes a sample at the end of each period until ctx ends.
func (m *meter) run(ctx context.Context, period time.Duration, source Source) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	m.take(source)
	for {
		select {
		case <-tick.C:
			m.take(source)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take takes a sample.
func (m *meter) take(source Source) {
	state := source.State()
	now := sample{at: state.Now, usage: make(map[string]Usage)}
	for _, d := range state.Databases {
		now.usage[d.Name] = d.Usage
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.before, m.mu.last = m.mu.last, now
}

// average is what a database did in the last period: counts, bytes and waiting time by the second, the other times
// for each transaction and query; all zero before one is over.
func (m *meter) average(name string) Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.before.usage == nil {
		return Usage{}
	}
	before, last := m.mu.before.usage[name], m.mu.last.usage[name]
	period := m.mu.last.at.Sub(m.mu.before.at)
	if period <= 0 {
		return Usage{}
	}
	perSecond := func(n uint64) uint64 { return uint64(float64(n)/period.Seconds() + 0.5) }
	each := func(d time.Duration, n uint64) time.Duration {
		if n == 0 {
			return 0
		}
		return d / time.Duration(n)
	}
	transactions, queries := last.Transactions-before.Transactions, last.Queries-before.Queries
	return Usage{
		Transactions: perSecond(transactions), Queries: perSecond(queries),
		Received: perSecond(last.Received - before.Received), Sent: perSecond(last.Sent - before.Sent),
		InTransaction: each(last.InTransaction-before.InTransaction, transactions), InQuery: each(last.InQuery-before.InQuery, queries),
		Waited: time.Duration(perSecond(uint64(last.Waited - before.Waited))),
	}
}
