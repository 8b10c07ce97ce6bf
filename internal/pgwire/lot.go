package pgwire

// A Parked is the owner of a link that waits in a Lot.
type Parked interface {
	// Resume is called once for each time that the link was parked, by somebody who must not be kept waiting: the peer
	// has spoken, its stream has ended, a deadline for reading was set, the link was closed, or Wake was called.
	Resume()
}
