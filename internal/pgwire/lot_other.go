//go:build !linux

package pgwire

// Lot is where links wait whose owners have nothing to do until the peer speaks. There is none on this system.
type Lot struct{}

// NewLot returns a Lot that takes no link.
func NewLot() (*Lot, error) { return &Lot{}, nil }

// Run returns at once.
func (lot *Lot) Run() error { return nil }

// Close does nothing.
func (lot *Lot) Close() error { return nil }

// Park takes no link.
func (lot *Lot) Park(*Link, Parked) bool { return false }

// Wake does nothing.
func (lot *Lot) Wake(*Link) {}
