package health

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// fenceOf makes a fence with nodes 1, 2, 3, of which 1 is the primary on timeline 1.
func fenceOf() (*Fence, []*Live) {
	f, lives := new(Fence), []*Live{nil, new(Live), new(Live), new(Live)}
	for id := 1; id <= 3; id++ {
		f.join(id, lives[id])
	}
	f.setLine(1, 1)
	return f, lives
}

// primaryAt is a sample of a primary without open transactions.
func (f *Fence) primaryAt(id int, timeline uint32, flush, insert lsn, xmin uint64) uint64 {
	n := f.next()
	f.observe(id, sample{number: n, timeline: timeline, flush: flush, insert: insert, xmin: xmin, xmax: xmin, next: xmin})
	return n
}

// standbyAt is a sample of a standby.
func (f *Fence) standbyAt(id int, timeline uint32, replay lsn, xmax uint64) uint64 {
	n := f.next()
	f.observe(id, sample{number: n, recovery: true, timeline: timeline, replay: replay, xmax: xmax})
	return n
}

// TestFenceLine: positions count only within one timeline, and only the primary's.
func TestFenceLine(t *testing.T) {
	f, lives := fenceOf()
	f.primaryAt(1, 1, 100, 100, 10)
	f.standbyAt(2, 1, 100, 10)
	if got := lives[2].Fresh(); got.AsOf != 1 || got.Sample != 2 || got.Covered != 2 {
		t.Fatalf("standby at the primary's position: %+v", got)
	}
	n := f.primaryAt(1, 1, 100, 100, 10)
	if got := lives[2].Fresh(); got.AsOf != n {
		t.Errorf("an idle primary's next sample opens the fence at once: %+v, want %d", got, n)
	}
	f.primaryAt(3, 1, 50, 50, 5)
	f.primaryAt(1, 2, 60, 60, 5)
	if got := lives[2].Fresh(); got.AsOf != n {
		t.Errorf("another writable node, or another timeline, moved the fence: %+v", got)
	}
	f.standbyAt(3, 2, 1000, 10)
	if got := lives[3].Fresh(); got.AsOf != 0 {
		t.Errorf("a standby of another timeline is fresh: %+v", got)
	}
	f.setLine(3, 2)
	if got := lives[2].Fresh(); got.AsOf != 0 || got.Covered != 0 || got.Sample != 0 {
		t.Errorf("freshness outlived its line: %+v", got)
	}
	f.standbyAt(2, 1, 2000, 4)
	n = f.primaryAt(3, 2, 70, 70, 3)
	if got := lives[2].Fresh(); got.AsOf != 0 || got.Covered != 0 {
		t.Errorf("a standby that still follows the old line is fresh: %+v", got)
	}
	f.standbyAt(2, 2, 70, 4)
	if got := lives[2].Fresh(); got.AsOf != n || got.Covered != 0 {
		t.Errorf("after following: %+v, want fresh as of %d and nothing covered below xmin 4", got, n)
	}
	f.setLine(3, 2)
	if got := lives[2].Fresh(); got.AsOf != n {
		t.Errorf("setting the same line again voided: %+v", got)
	}
}

// TestFenceVoid: an incarnation that ended vouches for nothing, also by an answer that was late.
func TestFenceVoid(t *testing.T) {
	f, lives := fenceOf()
	f.primaryAt(1, 1, 100, 100, 10)
	f.standbyAt(2, 1, 100, 10)
	late := f.next()
	before := lives[2].Fresh()
	f.void(2)
	after := lives[2].Fresh()
	if after.AsOf != 0 || after.Sample != 0 || after.Incarnation == before.Incarnation || after.Covered != before.Covered {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	f.observe(2, sample{number: late, recovery: true, timeline: 1, replay: 500, xmax: 10})
	if got := lives[2].Fresh(); got.AsOf != 0 {
		t.Fatalf("a sample requested before the void counts: %+v", got)
	}
	// A primary sample that was requested before the void says nothing of what the old incarnation
	// showed, even if it arrives now.
	old := f.next()
	f.void(2)
	f.standbyAt(2, 1, 100, 8)
	f.observe(1, sample{number: old, timeline: 1, flush: 100, insert: 100, xmin: 12, xmax: 12, next: 12})
	if got := lives[2].Fresh(); got.Covered != before.Covered {
		t.Fatalf("covered by a primary sample from before the void: %+v", got)
	}
	f.primaryAt(1, 1, 100, 100, 11)
	f.mu.ledger.nodes[2].floor = 15
	n := f.standbyAt(2, 1, 100, 8)
	if got := lives[2].Fresh(); got.Covered >= n {
		t.Fatalf("covered below what the old incarnation may have shown: %+v", got)
	}
	f.primaryAt(1, 1, 100, 100, 15)
	if got := lives[2].Fresh(); got.Covered != n {
		t.Fatalf("not covered: %+v, want %d", got, n)
	}
}

// TestFenceInsert: while somebody commits without flushing the insert position is the fence, and
// the flush position only once it has passed everything inserted until then.
func TestFenceInsert(t *testing.T) {
	f, lives := fenceOf()
	f.standbyAt(2, 1, 100, 1)
	asOf := func() uint64 { return lives[2].Fresh().AsOf }
	n := f.primaryAt(1, 1, 100, 150, 1)
	if asOf() != n {
		t.Fatalf("flush position: fresh as of %d, not %d", asOf(), n)
	}
	on := f.SyncCommitOff()
	if f.primaryAt(1, 1, 100, 150, 1); asOf() != n {
		t.Fatalf("insert position not passed, fresh as of %d", asOf())
	}
	requested := f.next()
	on()
	on()
	f.observe(1, sample{number: requested, timeline: 1, flush: 100, insert: 120, xmin: 1, xmax: 1})
	if f.primaryAt(1, 1, 130, 150, 1); asOf() != n {
		t.Fatalf("flush has not passed what was inserted, fresh as of %d", asOf())
	}
	f.standbyAt(2, 1, 130, 1)
	if f.primaryAt(1, 1, 140, 160, 1); asOf() != requested {
		t.Fatalf("flush has not passed what was inserted, fresh as of %d, not %d", asOf(), requested)
	}
	f.standbyAt(2, 1, 150, 1)
	if last := f.primaryAt(1, 1, 150, 190, 1); asOf() != last {
		t.Fatalf("flush has passed, fresh as of %d, not %d", asOf(), last)
	}
	f.observe(1, sample{number: f.next(), timeline: 1, flush: 150, insert: 200, async: true})
	before := asOf()
	if f.primaryAt(1, 1, 150, 210, 1); asOf() != before {
		t.Fatalf("a setting of a role had it off; sessions keep that, fresh as of %d", asOf())
	}
}

// TestFenceWakes: Changed is closed by what moves and by nothing else.
func TestFenceWakes(t *testing.T) {
	f, _ := fenceOf()
	ch := f.Changed()
	if ch != f.Changed() {
		t.Fatal("two waiters, two channels")
	}
	f.observe(9, sample{number: f.next(), recovery: true, timeline: 1, replay: 9})
	select {
	case <-ch:
		t.Fatal("closed by a node that is not known")
	default:
	}
	f.primaryAt(1, 1, 100, 100, 1)
	f.standbyAt(2, 1, 100, 1)
	select {
	case <-ch:
	default:
		t.Fatal("not closed")
	}
	kicks := 0
	f.onDemand(func() { kicks++ })
	release := f.Demand()
	if !f.wanted() || kicks != 1 {
		t.Fatalf("wanted %v, %d kicks", f.wanted(), kicks)
	}
	release()
	release()
	if f.wanted() || f.demand.Load() != 0 {
		t.Fatalf("demand %d after release", f.demand.Load())
	}
}

// TestLag: bytes and time from the proxy's own history of the primary's positions.
func TestLag(t *testing.T) {
	f, _ := fenceOf()
	second := int64(time.Second)
	put := func(at int64, flush lsn) {
		f.observe(1, sample{number: f.next(), sent: at, timeline: 1, flush: flush, insert: flush})
	}
	if rep := f.lag(2, second); rep.bytes != -1 || rep.fresh != -1 {
		t.Fatalf("unknown: %+v", rep)
	}
	put(1*second, 100)
	f.standbyAt(2, 1, 100, 1)
	put(2*second, 100)
	if rep := f.lag(2, 60*second); rep.bytes != 0 || rep.time != 0 {
		t.Errorf("an idle primary: %+v", rep)
	}
	put(61*second, 150)
	put(62*second, 200)
	if rep := f.lag(2, 63*second); rep.bytes != 100 || rep.time != 2*time.Second {
		t.Errorf("stalled since the position after its own was seen: %+v", rep)
	}
	f.standbyAt(2, 1, 170, 1)
	if rep := f.lag(2, 63*second); rep.bytes != 30 || rep.time != time.Second {
		t.Errorf("half way: %+v", rep)
	}
	if rep := f.lag(1, 63*second); rep.bytes != 0 || rep.fresh != time.Second {
		t.Errorf("the primary itself: %+v", rep)
	}
}

// TestThin: a bounded history stays true, whatever comes.
func TestThin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var points []point
	all := map[uint64]uint64{}
	value := uint64(1000)
	for n := uint64(1); n < 50_000; n++ {
		value += uint64(rnd.IntN(20))
		v := value - uint64(rnd.IntN(30))
		all[n] = v
		points = pushPoint(points, point{number: n, value: v}, 128)
		if len(points) > 128 {
			t.Fatalf("%d points", len(points))
		}
		if i := lastAtOrBelow(points, v); i < 0 || points[i].number != n {
			t.Fatalf("number %d is not found at its own value", n)
		}
	}
	for i, p := range points {
		if all[p.number] != p.value || i > 0 && (p.number <= points[i-1].number || p.value <= points[i-1].value) {
			t.Fatalf("point %d: %+v", i, p)
		}
	}
}

// TestBehindHeader: only a position right behind a page header is moved, to the page's start.
func TestBehindHeader(t *testing.T) {
	const page, segment = 8192, 16 << 20
	for at, want := range map[lsn]lsn{
		0x3000028:          0x3000000,              // long header at a segment's start
		0x3000018:          0x3000018,              // 24 in the first page lies inside of its header
		0x3000000 + 8192:   0x3000000 + 8192,       // page start
		0x3000018 + 8192:   0x3000000 + 8192,       // short header
		0x3000028 + 8192:   0x3000028 + 8192,       // 40 in another page is an ordinary place
		0x3000020 + 5*8192: 0x3000020 + 5*8192,     // behind the header and a record's tail
		0x3000018 + 7*8192: 0x3000000 + 7*8192,     // short header
		1<<40 + 0x28:       1 << 40,                // far
		1<<40 + 8192 + 24:  (1 << 40) + 8192,       // far
		1<<40 + 8192 + 25:  (1<<40 + 8192) + 25,    // odd
		0x3000028 - 8:      lsn(0x3000028) - 8,     // inside of a header
		0x4000000 - 1:      lsn(0x4000000) - 1,     // last byte of a segment
		0x3ffe000 + 24:     0x3ffe000,              // last page of a segment
		0x3000028 + 8:      lsn(0x3000028) + 8,     // first record of a segment
		0x3000018 + 8200:   lsn(0x3000018) + 8200,  // first record of a page
		0x3000000 + 8192*2: lsn(0x3000000) + 16384, // page start
	} {
		if got := behindHeader(at, page, segment); got != want {
			t.Errorf("%s: %s, not %s", at, got, want)
		}
	}
	if got := behindHeader(0x3000028, 0, 0); got != 0x3000028 {
		t.Errorf("without sizes: %s", got)
	}
}

// TestNextXID widens a 32-bit count.
func TestNextXID(t *testing.T) {
	for _, c := range []struct {
		xmax uint64
		next uint64
	}{{731, 731}, {731, 740}, {1<<32 - 1, 1<<32 + 5}, {5<<32 + 7, 5<<32 + 7}, {3<<32 + 1<<31, 3<<32 + 1<<31 + 9}} {
		age := int32(uint32(c.next) - 3)
		if got := nextXID(c.xmax, strconv.Itoa(int(age))); got != c.next {
			t.Errorf("xmax %d, age %d: %d, not %d", c.xmax, age, got, c.next)
		}
	}
	if nextXID(0, "5") != 0 || nextXID(5, "") != 0 {
		t.Error("unknown is not 0")
	}
}
