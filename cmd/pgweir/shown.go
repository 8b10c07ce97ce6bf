package main

import (
	"net"
	"strconv"

	"pgweir/health"
	"pgweir/internal/admin"
)

// shown is what the admin address shows of a running server.
type shown struct{ s *server }

// Unready says what is missing before clients can be served.
func (v *shown) Unready() []string {
	var out []string
	if !v.s.ready.Load() {
		out = append(out, "not listening")
	}
	return out
}

// Clusters is the state of every cluster now.
func (v *shown) Clusters() []admin.Cluster {
	out := make([]admin.Cluster, 0, len(v.s.clusters))
	for _, m := range v.s.clusters {
		out = append(out, v.cluster(m))
	}
	return out
}

// cluster is the state of one cluster.
func (v *shown) cluster(m *member) admin.Cluster {
	snap := m.monitor.Snapshot()
	c := admin.Cluster{
		Name: m.name, Seen: m.seen(), Why: snap.Why, Epoch: snap.Epoch, System: snap.System, SplitBrain: snap.SplitBrain,
		Unconfirmed: snap.Unconfirmed, Timeline: snap.Timeline, Held: m.cluster.Held(), Clients: m.cluster.Clients(),
	}
	if snap.Primary != nil {
		c.Primary = snap.Primary.Name
	}
	now := health.Clock()
	for _, n := range snap.Nodes {
		host, port := n.Addr, 0
		if h, p, err := net.SplitHostPort(n.Addr); err == nil {
			host = h
			port, _ = strconv.Atoi(p)
		}
		c.Nodes = append(c.Nodes, admin.Node{
			Name: n.Name, Host: host, Port: port, Zone: n.Zone, Tags: n.Tags, Role: n.Role.String(), State: n.State.String(),
			Trusted: n.Trusted(now), Reads: !n.NoReads && n.Weight > 0, Timeline: n.Timeline, Detail: n.Detail,
			LagBytes: n.LagBytes, Lag: n.LagTime, Version: n.Version,
		})
	}
	events := m.monitor.Events()
	for i := len(events) - 1; i >= 0; i-- {
		c.Events = append(c.Events, admin.Event{At: events[i].At, Text: events[i].Text})
	}
	return c
}
