//go:build linux

package pgwire

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// owner counts how often it was resumed.
type owner struct {
	times   atomic.Int64
	resumed chan struct{}
}

func newOwner() *owner { return &owner{resumed: make(chan struct{}, 1000)} }

// Resume counts.
func (o *owner) Resume() {
	o.times.Add(1)
	o.resumed <- struct{}{}
}

// newLot is a Lot that runs until the end of the test.
func newLot(t *testing.T) *Lot {
	t.Helper()
	lot, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- lot.Run() }()
	t.Cleanup(func() {
		_ = lot.Close()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return lot
}

// pair is a link and its peer's socket.
func pair(t *testing.T) (*Link, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	link := NewLink(conn)
	t.Cleanup(func() { _, _ = link.Close(), peer.Close() })
	return link, peer
}

// TestLotResumes: whatever a reader would be woken by resumes a parked link, once.
func TestLotResumes(t *testing.T) {
	lot := newLot(t)
	for what, do := range map[string]func(link *Link, peer net.Conn){
		"bytes":          func(_ *Link, peer net.Conn) { _, _ = peer.Write([]byte("x")) },
		"the end":        func(_ *Link, peer net.Conn) { _ = peer.Close() },
		"half an end":    func(_ *Link, peer net.Conn) { _ = peer.(*net.TCPConn).CloseWrite() },
		"a reset":        func(_ *Link, peer net.Conn) { _ = peer.(*net.TCPConn).SetLinger(0); _ = peer.Close() },
		"Close":          func(link *Link, _ net.Conn) { _ = link.Close() },
		"a deadline":     func(link *Link, _ net.Conn) { _ = link.SetReadDeadline(time.Unix(1, 0)) },
		"both deadlines": func(link *Link, _ net.Conn) { _ = link.SetDeadline(time.Unix(1, 0)) },
		"Wake":           func(link *Link, _ net.Conn) { lot.Wake(link) },
		"all of it": func(link *Link, peer net.Conn) {
			_, _ = peer.Write([]byte("x"))
			lot.Wake(link)
			_ = peer.Close()
			_ = link.Close()
		},
		"bytes, deadline": func(link *Link, peer net.Conn) {
			_, _ = peer.Write([]byte("x"))
			_ = link.SetReadDeadline(time.Unix(1, 0))
		},
	} {
		t.Run(what, func(t *testing.T) {
			link, peer := pair(t)
			for range 2 { // the socket is known to the lot the second time
				o := newOwner()
				if !lot.Park(link, o) {
					t.Fatal("not taken")
				}
				lot.Wake(link)
				<-o.resumed
			}
			o := newOwner()
			if !lot.Park(link, o) {
				t.Fatal("not taken")
			}
			do(link, peer)
			<-o.resumed
			lot.Wake(link)
			if n := o.times.Load(); n != 1 {
				t.Errorf("resumed %d times", n)
			}
		})
	}
}

// TestLotFindsWhatIsThere: bytes that came before the link was parked resume it, those that are buffered keep it out, and after
// a resume the link works as ever.
func TestLotFindsWhatIsThere(t *testing.T) {
	lot := newLot(t)
	link, peer := pair(t)
	for range 3 {
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		o := newOwner()
		if !lot.Park(link, o) {
			t.Fatal("not taken")
		}
		<-o.resumed
		if err := link.Fill(); err != nil || string(link.Buffered()) != "x" {
			t.Fatalf("%q, %v", link.Buffered(), err)
		}
		if lot.Park(link, o) {
			t.Fatal("parked with bytes in its buffer")
		}
		link.Discard(1)
	}
}

// TestLotRefuses: a link without a socket of its own and a lot that is closed.
func TestLotRefuses(t *testing.T) {
	lot := newLot(t)
	a, b := net.Pipe()
	piped := NewLink(a)
	if piped.Parkable() || lot.Park(piped, newOwner()) {
		t.Error("a pipe was taken")
	}
	_, _ = a.Close(), b.Close()
	gone, _ := pair(t)
	_ = gone.Close()
	if lot.Park(gone, newOwner()) {
		t.Error("a closed socket was taken")
	}
	other, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	link, _ := pair(t)
	_ = other.Close()
	if other.Park(link, newOwner()) {
		t.Error("a closed lot took a link")
	}
	if !link.Parkable() || !lot.Park(link, newOwner()) {
		t.Error("not taken after a refusal")
	}
}

// TestLotFails: a lot that cannot wait any more resumes all that it has.
func TestLotFails(t *testing.T) {
	lot, err := NewLot()
	if err != nil {
		t.Fatal(err)
	}
	link, _ := pair(t)
	o := newOwner()
	if !lot.Park(link, o) {
		t.Fatal("not taken")
	}
	_ = lot.file.Close()
	if err := lot.Run(); err == nil {
		t.Error("no error")
	}
	<-o.resumed
	if lot.Park(link, o) {
		t.Error("taken by a lot that does not work")
	}
}

// TestLotManyWakers: links that are parked again and again while their peers speak and others wake them lose no wake-up and get
// none twice; sockets with the numbers of closed ones are not taken for them.
func TestLotManyWakers(t *testing.T) {
	lot := newLot(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				link, peer := pair(t)
				o := newOwner()
				for i := range 10 {
					if !lot.Park(link, o) {
						t.Error("not taken")
						return
					}
					var both sync.WaitGroup
					both.Go(func() { lot.Wake(link) })
					both.Go(func() { _, _ = peer.Write([]byte("x")) })
					<-o.resumed
					both.Wait()
					if n := o.times.Load(); n != int64(i)+1 {
						t.Errorf("resumed %d times instead of %d", n, i+1)
					}
					if err := link.Fill(); err != nil {
						t.Error(err)
					}
					link.Discard(len(link.Buffered()))
				}
				_, _ = link.Close(), peer.Close()
			}
		})
	}
	wg.Wait()
}
