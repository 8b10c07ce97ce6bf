package pgwire

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Lot is where links wait whose owners have nothing to do until the peer speaks: a goroutine that waits keeps its stack,
// and of many clients most are silent most of the time. It is an epoll instance (epoll(7)), on which the runtime's own
// poller waits.
type Lot struct {
	fd   int
	file *os.File
	raw  syscall.RawConn
	mu   struct {
		sync.Mutex
		parked map[uint64]parking // by the link's ticket
		last   uint64             // ticket that was given out
		closed bool
	}
}

// parking is a link in a Lot.
type parking struct {
	link  *Link
	owner Parked
}

// NewLot returns an empty Lot. Run must be called for it to work.
func NewLot() (*Lot, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // so that the runtime's poller takes it
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("making an epoll instance non-blocking: %w", err)
	}
	lot := &Lot{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	lot.mu.parked = make(map[uint64]parking)
	if lot.raw, err = lot.file.SyscallConn(); err != nil {
		_ = lot.file.Close()
		return nil, err
	}
	return lot, nil
}

// Run wakes links whose peers speak until Close. The error is the kernel's: then all links are resumed, and none is taken any
// more.
func (lot *Lot) Run() error {
	var events [128]syscall.EpollEvent
	for {
		n, errno := 0, error(nil)
		err := lot.raw.Read(func(fd uintptr) bool {
			n, errno = syscall.EpollWait(int(fd), events[:], 0)
			return n > 0 || errno != nil
		})
		if err == nil && errno != nil && !errors.Is(errno, syscall.EINTR) {
			err = errno
		}
		if err != nil {
			return lot.ends(err)
		}
		for i := range max(n, 0) {
			lot.resume(ticketOf(&events[i]))
		}
	}
}

// ends closes the lot after an error, nil where that came of Close.
func (lot *Lot) ends(err error) error {
	lot.mu.Lock()
	if lot.mu.closed {
		lot.mu.Unlock()
		return nil
	}
	lot.mu.closed = true
	tickets := slices.Collect(maps.Keys(lot.mu.parked))
	lot.mu.Unlock()
	for _, t := range tickets {
		lot.resume(t)
	}
	return fmt.Errorf("waiting with epoll: %w", err)
}

// Close ends Run. Links that are parked stay so until they are woken.
func (lot *Lot) Close() error {
	lot.mu.Lock()
	lot.mu.closed = true
	lot.mu.Unlock()
	return lot.file.Close()
}

// Park takes a link, and from then on its owner may use no method of it but Close and the deadlines until Resume. It takes none
// that has no socket of its own, as one with TLS: then it returns false, and nothing has changed.
func (lot *Lot) Park(l *Link, owner Parked) bool {
	if l.raw == nil || l.w > l.r {
		return false
	}
	taken := false
	err := l.raw.Control(func(fd uintptr) {
		lot.mu.Lock()
		defer lot.mu.Unlock()
		if lot.mu.closed {
			return
		}
		lot.mu.last++
		ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT}
		setTicket(&ev, lot.mu.last)
		op := syscall.EPOLL_CTL_ADD
		if l.listed {
			op = syscall.EPOLL_CTL_MOD
		}
		if syscall.EpollCtl(lot.fd, op, int(fd), &ev) != nil {
			return
		}
		l.listed, l.ticket, taken = true, lot.mu.last, true
		lot.mu.parked[l.ticket] = parking{link: l, owner: owner}
		l.lot.Store(lot)
	})
	return err == nil && taken
}

// Wake resumes a link if it is parked. It may be called at any time, by anybody.
func (lot *Lot) Wake(l *Link) {
	lot.mu.Lock()
	ticket := l.ticket
	lot.mu.Unlock()
	lot.resume(ticket)
}

// resume takes a link out of the lot and tells its owner, unless somebody else was faster.
func (lot *Lot) resume(ticket uint64) {
	lot.mu.Lock()
	p, ok := lot.mu.parked[ticket]
	if ok {
		delete(lot.mu.parked, ticket)
		p.link.lot.Store(nil)
	}
	lot.mu.Unlock()
	if ok {
		p.owner.Resume()
	}
}

// setTicket puts a ticket into the data of an event.
func setTicket(ev *syscall.EpollEvent, ticket uint64) {
	ev.Fd, ev.Pad = int32(uint32(ticket)), int32(uint32(ticket>>32))
}

// ticketOf takes it out again.
func ticketOf(ev *syscall.EpollEvent) uint64 {
	return uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
}
