package health

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what is counted of all clusters of a process; label cluster tells them apart.
type Metrics struct {
	up, role, timeline, lagBytes, lagSeconds, freshAge *prometheus.GaugeVec
	changes, samples                                   *prometheus.CounterVec
	split, unconfirmed                                 *prometheus.GaugeVec
}

// NewMetrics makes them and registers them with reg, unless that is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "pgweir", Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pgweir", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		up:          gauge("node_up", "Whether the node answers its probes.", "cluster", "node"),
		role:        gauge("node_role", "1 for the role that the node has, 0 for the others.", "cluster", "node", "role"),
		timeline:    gauge("node_timeline", "Timeline of the node, 0 while unknown.", "cluster", "node"),
		lagBytes:    gauge("node_replay_lag_bytes", "How far replay stands behind the primary, -1 while unknown.", "cluster", "node"),
		lagSeconds:  gauge("node_replay_lag_seconds", "For how long the primary has been further than the node's replay.", "cluster", "node"),
		freshAge:    gauge("node_fresh_age_seconds", "Age of the primary's sample that the node has replayed, -1 while it vouches for nothing.", "cluster", "node"),
		changes:     counter("primary_changes_total", "How often another primary or timeline was accepted.", "cluster"),
		samples:     counter("samples_total", "Position samples answered by nodes.", "cluster"),
		split:       gauge("split_brain", "1 while several members are writable and neither follows from the other.", "cluster"),
		unconfirmed: gauge("primary_unconfirmed", "1 while the primary was accepted without memory and without a majority.", "cluster"),
	}
	if reg != nil {
		reg.MustRegister(m.up, m.role, m.timeline, m.lagBytes, m.lagSeconds, m.freshAge, m.changes, m.samples, m.split, m.unconfirmed)
	}
	return m
}

// begin makes the counters of a cluster start at zero.
func (m *Metrics) begin(cluster string) {
	m.changes.WithLabelValues(cluster)
	m.samples.WithLabelValues(cluster)
	m.split.WithLabelValues(cluster)
	m.unconfirmed.WithLabelValues(cluster)
}

// primaryChanged counts a new line.
func (m *Metrics) primaryChanged(cluster string) { m.changes.WithLabelValues(cluster).Inc() }

// sampled counts an answered sample.
func (m *Metrics) sampled(cluster string) { m.samples.WithLabelValues(cluster).Inc() }

// forget removes the series of a node.
func (m *Metrics) forget(cluster, node string) {
	labels := prometheus.Labels{"cluster": cluster, "node": node}
	for _, g := range []*prometheus.GaugeVec{m.up, m.role, m.timeline, m.lagBytes, m.lagSeconds, m.freshAge} {
		g.DeletePartialMatch(labels)
	}
}

// measure sets the gauges to what s shows; fresh are the ages of the nodes' freshness.
func (m *Metrics) measure(s *Snapshot, fresh map[int]time.Duration) {
	m.split.WithLabelValues(s.Cluster).Set(flag(s.SplitBrain))
	m.unconfirmed.WithLabelValues(s.Cluster).Set(flag(s.Unconfirmed))
	for _, n := range s.Nodes {
		m.up.WithLabelValues(s.Cluster, n.Name).Set(flag(n.State != StateDown && n.State != StateUnknown))
		for _, r := range []Role{RoleUnknown, RolePrimary, RoleStandby, RoleOther} {
			m.role.WithLabelValues(s.Cluster, n.Name, r.String()).Set(flag(r == n.Role))
		}
		m.timeline.WithLabelValues(s.Cluster, n.Name).Set(float64(n.Timeline))
		m.lagBytes.WithLabelValues(s.Cluster, n.Name).Set(float64(n.LagBytes))
		m.lagSeconds.WithLabelValues(s.Cluster, n.Name).Set(n.LagTime.Seconds())
		age := -1.0
		if d := fresh[n.ID]; d >= 0 {
			age = d.Seconds()
		}
		m.freshAge.WithLabelValues(s.Cluster, n.Name).Set(age)
	}
}

// flag is 1 for true.
func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
