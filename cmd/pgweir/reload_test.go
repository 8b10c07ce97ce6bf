package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgweir/router"
)

// running is the configuration that the tests of a reload start from.
const running = `
listen: [":6432", {addr: ":6433", route: standby}]
clusters:
  shop: {nodes: [pg-a, pg-b], monitor: {password: one}}
  ledger: {nodes: [pg-x]}
process: 1
peers: [{process: 2, address: "w2:6432"}]
databases:
  app: {cluster: shop, pool_size: 40}
  old: {cluster: shop}
  "*": {cluster: ledger}
`

// changeLines are the changes as lines.
func changeLines(changes []Change) []string {
	var out []string
	for _, c := range changes {
		out = append(out, c.String())
	}
	return out
}

// TestReloadAppliesAndNames holds what changes at once and what waits, by name.
func TestReloadAppliesAndNames(t *testing.T) {
	before := loadText(t, running)
	after := loadText(t, `
listen: [{addr: ":6432", reuse_port: true}, {addr: ":6433", route: shadow}, ":6434"]
process: 3
peers: [{process: 2, address: "new:6432"}, {process: 4, address: "w4:6432"}]
peer_tls: {mode: require}
state_dir: /var/lib/pgweir
hold: {timeout: 5s}
max_client_conn: 7
client_login_timeout: 2s
query_timeout: 3s
probe: {interval: 100ms}
routing: {opaque: reset, session_safe_functions: [f]}
clusters:
  shop: {nodes: [pg-a, pg-c], monitor: {password: two}, consistency: global}
  fresh: {nodes: [pg-y]}
databases:
  app: {cluster: shop, pool_size: 50}
  neu: {cluster: fresh}
  "*": {cluster: shop}
users: {batch: {password: hunter2}}
`)
	r := Reload(before, after)
	applied := changeLines(r.Applied)
	for _, want := range []string{
		"listen[1].route: standby → shadow", "hold.timeout: 30s → 5s", "max_client_conn: 10000 → 7", "client_login_timeout: 1m → 2s", "query_timeout: 0 → 3s", "clusters.shop.routing.opaque: pin → reset", "clusters.shop.consistency: (none) → global",
		"databases.app.pool_size: 40 → 50", "databases.*.cluster: ledger → shop", "databases.old.cluster: shop → (none)",
		"users.batch.password: (none) → ***",
		"peers[0].address: w2:6432 → new:6432", "peers[1].process: (none) → 4", "peer_tls.mode: prefer → require",
	} {
		if !slices.Contains(applied, want) {
			t.Errorf("%q is not applied: %q", want, applied)
		}
	}
	waiting := strings.Join(changeLines(r.Waiting), "\n")
	for _, want := range []string{
		"state_dir:", "listen[2].addr: (none) → :6434", "clusters.shop.nodes[1].host: pg-b → pg-c", "clusters.shop.monitor.password: *** → ***",
		"clusters.shop.probe.interval: 200ms → 100ms", "clusters.shop.routing.session_safe_functions: [] → [f]", "clusters.fresh.nodes[0].host: (none) → pg-y", "clusters.ledger.nodes[0].host: pg-x → (none)",
		"databases.neu.cluster: (none) → fresh", "process: 1 → 3", "listen[0].reuse_port: false → true",
	} {
		if !strings.Contains(waiting, want) {
			t.Errorf("%q does not wait: %s", want, waiting)
		}
	}
	for _, no := range []string{"hunter2", "hold", "\nprobe.", "shop.routing.opaque"} {
		if strings.Contains(waiting, no) {
			t.Errorf("%q is among those that wait: %s", no, waiting)
		}
	}

	c := r.Config
	if c.StateDir != "" || *c.Process != 1 || c.Listen[0].ReusePort || len(c.Listen) != 2 || c.Hold.Timeout != 5*time.Second || *c.Listen[1].Route != router.RouteShadow {
		t.Errorf("merged: %+v", c)
	}
	if names := []string{c.Clusters[0].Name, c.Clusters[1].Name}; !slices.Equal(names, []string{"shop", "ledger"}) || c.Clusters[0].Nodes[1].Host != "pg-b" {
		t.Errorf("clusters changed: %v", names)
	}
	if r := c.Clusters[0].Routing; r.Opaque != "reset" || len(r.SessionSafeFunctions) > 0 {
		t.Errorf("routing after the reload: %+v", r)
	}
	s, err := c.Settings(0, "anything", "x")
	if err != nil || s.Cluster.Name != "shop" || s.Consistency != router.ConsistencyGlobal {
		t.Errorf("settings after the reload: %+v, %v", s, err)
	}
	if _, err := c.Settings(0, "old", "x"); err != nil {
		t.Errorf("the rest does not take what is gone: %v", err)
	}
	if again := Reload(c, after); len(again.Applied) > 0 {
		t.Errorf("a second reload changes again: %q", changeLines(again.Applied))
	}
}

// TestReloadOfNothing holds that an unchanged configuration changes nothing.
func TestReloadOfNothing(t *testing.T) {
	r := Reload(loadText(t, running), loadText(t, running))
	if len(r.Applied)+len(r.Waiting) > 0 {
		t.Errorf("applied %q, waiting %q", changeLines(r.Applied), changeLines(r.Waiting))
	}
}

// TestReloadOfOneDatabase holds that every database always has a cluster that runs.
func TestReloadOfOneDatabase(t *testing.T) {
	before := loadText(t, running)
	after := loadText(t, "clusters: {fresh: {nodes: [pg-y]}}\n")
	r := Reload(before, after)
	for name := range r.Config.Databases {
		if _, err := r.Config.Settings(0, name, "x"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.Config.Databases) != 3 {
		t.Errorf("databases went with their cluster before it did: %v", r.Config.Databases)
	}
}
