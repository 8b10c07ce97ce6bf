package health

// Show replaces what a Live made by NewLive vouches for, and when its newest evidence was sent. A
// test of what routes by it plays the monitor with this; the monitor itself never calls it.
func (l *Live) Show(f Freshness, evidence int64) {
	l.fresh.Store(&f)
	l.evidence.Store(evidence)
}

// Sampled plays one sample on a fence that no monitor keeps: it takes the next number of the
// counter, has show, if it is not nil, publish what the sample says, and wakes whoever took
// Changed. It returns the number. It is for tests, as Live.Show is.
func (f *Fence) Sampled(show func(number uint64)) uint64 {
	n := f.next()
	if show != nil {
		show(n)
	}
	f.notify()
	return n
}
