package e2e

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgweir/internal/pgtest"
)

// TestNotifiers: a notification carries the process id that its sender was given while senders have connections of their
// own, and never another session's where they must share one.
func TestNotifiers(t *testing.T) {
	c := sharedCluster(t)
	for _, pool := range []struct {
		size  int
		exact bool
	}{{8, true}, {2, false}} {
		t.Run(fmt.Sprint(pool.size), func(t *testing.T) {
			p := StartProxy(t, c, proxyConfig{Extra: fmt.Sprintf("default_pool_size: %d\n", pool.size)})
			listener := p.Client(t)
			ask(t, listener, "LISTEN heard")
			const senders, each = 3, 50
			var wg sync.WaitGroup
			for range senders {
				s := p.Client(t)
				wg.Go(func() {
					for i := range each {
						sql := fmt.Sprintf("SELECT pg_notify('heard', '%d %d')", s.PID, i)
						if i%3 == 0 {
							sql = fmt.Sprintf("NOTIFY heard, '%d %d'", s.PID, i)
						}
						if _, err := s.Query(sql); err != nil {
							t.Error(err)
						}
					}
				})
			}
			right, others := 0, 0
			for range senders * each {
				ms, err := listener.ReadUntilType('A')
				must(t, err)
				body := ms[len(ms)-1].Body
				pid, sender := binary.BigEndian.Uint32(body), strings.Fields(strings.Split(string(body[4:]), "\x00")[1])[0]
				switch {
				case fmt.Sprint(pid) == sender:
					right++
				case pid > 4_194_304:
					others++
				}
			}
			wg.Wait()
			if others > 0 || pool.exact && right < senders*each {
				t.Errorf("%d of %d named their sender, %d another session", right, senders*each, others)
			}
			ms, err := listener.Exchange(pgtest.Query("NOTIFY heard, 'own'"))
			must(t, err)
			for _, m := range ms {
				if m.Type == 'A' && binary.BigEndian.Uint32(m.Body) != listener.PID {
					t.Errorf("its own came as %s", pgtest.Describe(m))
				}
			}
		})
	}
}
