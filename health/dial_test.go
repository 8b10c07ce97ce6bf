package health

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// TestNameGone: a name that is no longer found says nothing of its node while somebody answers at the address that
// it last had, and as much as a connection refused once nobody does.
func TestNameGone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	found := true
	d := &pgDialer{lookup: func(_ context.Context, host string) ([]string, error) {
		if !found {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []string{"127.0.0.1"}, nil
	}}
	node := NodeConfig{Host: "node.invalid", Port: listener.Addr().(*net.TCPAddr).Port}
	dial := func() failure {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		link, err := d.dial(ctx, node)
		if err == nil {
			link.close()
			t.Fatal("it connected")
		}
		return classify(err)
	}
	found = false
	if f := dial(); f.kind != failName {
		t.Errorf("a name that was never found: %+v", f)
	}
	found = true
	if f := dial(); f.kind == failName {
		t.Errorf("a name that is found: %+v", f)
	}
	found = false
	if f := dial(); f.kind != failName {
		t.Errorf("the name is gone, and its address answers: %+v", f)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	f := dial()
	if f.kind != failRefused || !strings.Contains(f.text, "no such host") || !strings.Contains(f.text, "refused") {
		t.Errorf("the name is gone, and nobody is at its address: %+v", f)
	}
	if _, err := d.dial(t.Context(), NodeConfig{Host: "other.invalid", Port: node.Port}); classify(err).kind != failName {
		t.Errorf("another name that is not found: %v", err)
	}
	var dns *net.DNSError
	if err := d.withoutName(t.Context(), node, &net.DNSError{Err: "no such host"}); errors.As(err, &dns) {
		t.Errorf("the error is still one of the name: %v", err)
	}
}
