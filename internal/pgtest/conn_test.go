package pgtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipe(t *testing.T) {
	a, b := Pipe(4)
	sent := []byte("more than there is room for")
	done := make(chan error, 1)
	go func() {
		_, err := a.Write(sent)
		done <- errors.Join(err, a.CloseWrite())
	}()
	got, err := io.ReadAll(b)
	must(t, err)
	must(t, <-done)
	if !bytes.Equal(got, sent) {
		t.Errorf("got %q", got)
	}
	_, err = b.Write([]byte("back"))
	must(t, err)
	if n := b.Unread(); n != 4 {
		t.Errorf("%d unread", n)
	}
	must(t, b.Close())
	back, err := io.ReadAll(a)
	if string(back) != "back" || err != nil {
		t.Errorf("after close: %q, %v", back, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a closed end: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a closed end: %v", err)
	}
}

// TestPipeInBubble shows deadlines, and that waiting in a Pipe lets a bubble's clock go on.
func TestPipeInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(1)
		begun := time.Now()
		must(t, a.SetReadDeadline(begun.Add(time.Minute)))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("read: %v after %v", err, time.Since(begun))
		}
		must(t, a.SetWriteDeadline(time.Now().Add(time.Minute)))
		if n, err := a.Write([]byte("xy")); n != 1 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v", n, err)
		}
		// A deadline that is moved to the past wakes who waits.
		must(t, a.SetReadDeadline(time.Time{}))
		go func() {
			synctest.Wait()
			must(t, a.SetReadDeadline(time.Now().Add(-time.Second)))
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("woken read: %v", err)
		}
		// And one that is taken back does not come.
		must(t, a.SetDeadline(time.Now().Add(time.Second)))
		must(t, a.SetDeadline(time.Time{}))
		go func() {
			time.Sleep(time.Hour)
			_, _ = b.Write([]byte("z"))
		}()
		if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("read: %d, %v", n, err)
		}
		must(t, a.Close())
		must(t, b.Close())
	})
}

func TestFaultyConnSplits(t *testing.T) {
	a, b := Pipe(100)
	f := NewFaultyConn(a)
	f.SplitReads(2)
	f.SplitWrites(3)
	_, err := b.Write([]byte("hello"))
	must(t, err)
	buf := make([]byte, 10)
	if n, err := f.Read(buf); n != 2 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	f.SplitReads(0)
	if n, err := f.Read(buf); n != 3 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := f.Write([]byte("12345678")); n != 8 || err != nil || f.BytesWritten() != 8 || f.BytesRead() != 5 {
		t.Errorf("wrote %d, %v", n, err)
	}
	must(t, f.CloseWrite())
	if got, err := io.ReadAll(b); string(got) != "12345678" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	must(t, f.Close())
}

func TestFaultyConnCuts(t *testing.T) {
	a, b := Pipe(100)
	f := NewFaultyConn(a)
	boom := errors.New("boom")
	f.CutWrites(3, boom)
	if n, err := f.Write([]byte("12345")); n != 3 || !errors.Is(err, boom) {
		t.Errorf("wrote %d, %v", n, err)
	}
	_, err := b.Write([]byte("12345"))
	must(t, err)
	f.CutReads(2, boom)
	if got, err := io.ReadAll(f); string(got) != "12" || !errors.Is(err, boom) {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, f.Close())
}

func TestFaultyConnStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(100)
		f := NewFaultyConn(a)
		f.StallWrites(2)
		f.StallReads(0)
		must(t, f.SetWriteDeadline(time.Now().Add(time.Minute)))
		if n, err := f.Write([]byte("12345")); n != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		_, err := b.Write([]byte("x"))
		must(t, err)
		read := make(chan error, 1)
		go func() {
			_, err := f.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		select {
		case err := <-read:
			t.Fatalf("read went through: %v", err)
		default:
		}
		f.Resume()
		must(t, <-read)
		f.StallReads(0)
		go func() {
			synctest.Wait()
			must(t, f.Close())
		}()
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed conn: %v", err)
		}
		must(t, b.Close())
	})
}
