package health

import (
	"strings"
	"testing"
)

// TestConfig: all that is wrong, at once.
func TestConfig(t *testing.T) {
	good := DefaultConfig()
	good.Cluster, good.Login.User = "c", "u"
	node, err := NodeAt("[::1]:5433")
	if err != nil || node.Host != "::1" || node.Port != 5433 || node.addr() != "[::1]:5433" {
		t.Fatalf("%+v %v", node, err)
	}
	good.Nodes = []NodeConfig{node}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{Discover: "patroni://x", PrimaryRequire: "all", Login: Login{SSLMode: "maybe"}, Nodes: []NodeConfig{{Host: "a", Port: 70000, Weight: -1}, {}}}
	text := bad.Validate().Error()
	for _, want := range []string{"cluster", "dns://name:port", "monitor.user", "sslmode", "probe.interval", "probe.fall", "primary.require", "port 70000", "weight", "nodes[1]: no host", "trust_window"} {
		if !strings.Contains(text, want) {
			t.Errorf("no word of %s in:\n%s", want, text)
		}
	}
	for _, addr := range []string{"", ":5432", "a:0", "a:x"} {
		if _, err := NodeAt(addr); err == nil {
			t.Errorf("%q is an address", addr)
		}
	}
}
