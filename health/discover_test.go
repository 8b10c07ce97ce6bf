package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDNS answers look-ups.
type fakeDNS struct {
	mu    sync.Mutex
	addrs []string
	srv   []*net.SRV
	err   error
}

// LookupNetIP answers with the addresses.
func (d *fakeDNS) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []netip.Addr
	for _, a := range d.addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, d.err
}

// LookupSRV answers with the records.
func (d *fakeDNS) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.srv) == 0 {
		return "", nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return "", d.srv, d.err
}

// TestMonitorDiscovery: every address a node; empty and failed answers change nothing.
func TestMonitorDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{addrs: []string{"10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1"}}
		set := func(err error, addrs ...string) {
			dns.mu.Lock()
			dns.addrs, dns.err = addrs, err
			dns.mu.Unlock()
		}
		nodes := fakeNet{"10.0.0.1": fakePrimary(1), "10.0.0.2": fakeStandby(1), "10.0.0.3": fakeStandby(1)}
		r := startRig(t, nodes, func(c *Config) { c.Discover = "dns://pg.svc:5433"; c.Resolver = dns })
		defer r.stop()
		s := r.after(time.Second)
		r.expect(t, "10.0.0.1:5433")
		if len(s.Nodes) != 2 || s.Nodes[1].Host != "pg.svc" || s.Nodes[1].Addr != "10.0.0.2:5433" {
			t.Fatalf("%d nodes: %+v", len(s.Nodes), s.Nodes[1])
		}
		set(errors.New("server failure"))
		r.after(10 * time.Second)
		set(nil)
		if s = r.after(10 * time.Second); len(s.Nodes) != 2 || s.Nodes[0].State != StateUp {
			t.Fatalf("an empty or failed answer changed something: %d nodes, %s", len(s.Nodes), s.Nodes[0].State)
		}
		set(nil, "10.0.0.1", "10.0.0.3")
		s = r.after(6 * time.Second)
		if n := s.Named("10.0.0.2:5433"); n == nil || n.State != StateDraining || s.Named("10.0.0.3:5433") == nil {
			t.Fatalf("nodes after a change: %+v", n)
		}
		if err := r.Forget("10.0.0.2:5433"); err != nil {
			t.Fatal(err)
		}
		if s = r.after(time.Second); s.Named("10.0.0.2:5433") != nil {
			t.Error("FORGET did not")
		}
		// A failed probe looks again before the interval is over.
		set(nil, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		r.after(1500 * time.Millisecond)
		nodes["10.0.0.3"].crash()
		if s = r.after(300 * time.Millisecond); s.Named("10.0.0.2:5433") == nil {
			t.Error("a failure did not start a look-up")
		}
	})
}

// TestDiscoverSRV: records name their own ports.
func TestDiscoverSRV(t *testing.T) {
	dns := &fakeDNS{srv: []*net.SRV{{Target: "b.svc.", Port: 6000}, {Target: "a.svc.", Port: 5432}, {Target: "a.svc.", Port: 5432}}, addrs: []string{"10.0.0.9"}}
	for name, want := range map[string]string{
		"dns://_pg._tcp.svc": "a.svc:5432 b.svc:6000",
		"dns://pg.svc":       "a.svc:5432 b.svc:6000",
		"dns://pg.svc:5433":  "10.0.0.9:5433",
	} {
		src, err := parseDiscover(name)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := src.lookup(t.Context(), dns)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range nodes {
			got = append(got, n.addr())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}
