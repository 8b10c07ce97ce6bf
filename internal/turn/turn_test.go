package turn

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestGive: a goroutine whose byte has arrived runs before one that gives its turn a few times, with one processor.
func TestGive(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	turn, err := New()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var heard atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1)
		for {
			if _, err := r.Read(b); err != nil {
				return
			}
			heard.Add(1)
		}
	})
	const rounds = 200
	late := 0
	for i := range int64(rounds) {
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			turn.Give()
		}
		if heard.Load() != i+1 {
			late++
			for heard.Load() != i+1 {
				turn.Give()
			}
		}
	}
	if late > rounds/20 {
		t.Errorf("the reader came late in %d of %d rounds", late, rounds)
	}
	_ = w.Close()
	wg.Wait()
	_ = r.Close()
}

// TestGiveTogether: many may give their turns at once.
func TestGiveTogether(t *testing.T) {
	turn, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				turn.Give()
			}
		})
	}
	wg.Wait()
}

func BenchmarkGive(b *testing.B) {
	turn, err := New()
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		turn.Give()
	}
}
