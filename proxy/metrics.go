package proxy

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgweir/health"
	"pgweir/router"
)

// Metrics counts what sessions do. The names are part of the API (docs/metrics.md).
type Metrics struct {
	statements   *prometheus.CounterVec
	routes       *prometheus.CounterVec
	shadow       *prometheus.CounterVec
	reroutes     *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	overhead     *prometheus.HistogramVec
	hold         *prometheus.HistogramVec
	freshDelay   *prometheus.HistogramVec
	held         *prometheus.GaugeVec
	clients      *prometheus.GaugeVec
	pinned       *prometheus.GaugeVec
	logins       *prometheus.CounterVec
	misroutes    *prometheus.CounterVec
	hintsIgnored *prometheus.CounterVec
	unproven     *prometheus.CounterVec
	moved        *prometheus.CounterVec
	localOnly    *prometheus.CounterVec
	closed       *prometheus.CounterVec
	cancels      *prometheus.CounterVec
	resets       *prometheus.CounterVec
}

// NewMetrics registers the metrics of the proxy.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	if len(router.Reasons()) >= maxReasons {
		panic("BUG: more reasons than the counters have room for")
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pgweir_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pgweir_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, from float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pgweir_" + name, Help: help,
			Buckets:                        prometheus.ExponentialBuckets(from, 4, 10),
			NativeHistogramBucketFactor:    1.2,
			NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
	}
	m := &Metrics{
		statements:   counter("statements_total", "Units of statements that were answered, by the node that answered and their class.", "cluster", "node", "class"),
		routes:       counter("routes_total", "Units of statements by where they went and why.", "cluster", "target", "reason"),
		shadow:       counter("shadow_statements_total", "Units on route: shadow, by where auto would have sent them and why.", "cluster", "target", "reason"),
		reroutes:     counter("reroutes_total", "Units that were run again elsewhere, by cause.", "cluster", "cause"),
		seconds:      histogram("statement_seconds", "Time from the last byte of a unit to the last byte of its answer.", 50e-6, "cluster", "target"),
		overhead:     histogram("overhead_seconds", "Time that a unit spent in the proxy before it was sent.", 2e-6, "cluster"),
		hold:         histogram("hold_seconds", "Time that statements waited for a primary, by outcome.", 1e-3, "cluster", "outcome"),
		freshDelay:   histogram("freshness_delay_seconds", "Time that reads waited for a fresh standby, by the node that answered.", 100e-6, "cluster", "node"),
		held:         gauge("writes_held", "Statements that wait for a primary.", "cluster"),
		clients:      gauge("clients", "Logged-in clients.", "cluster", "state"),
		pinned:       gauge("pinned_clients", "Clients that keep their primary connection, by the first reason.", "cluster", "reason"),
		logins:       counter("logins_total", "Logins of clients by method and result.", "method", "result"),
		misroutes:    counter("misroutes_seen_total", "Refusals of standbys that reached a client.", "cluster"),
		hintsIgnored: counter("hints_ignored_total", "Hints that came when the transaction had a node already.", "cluster"),
		moved:        counter("transactions_moved_total", "Transactions that a standby had begun to answer and that began anew, mostly on the primary.", "cluster"),
		unproven:     counter("freshness_unproven_total", "Reads that went to the primary before it was proven to show what the session had read on a standby.", "cluster"),
		localOnly:    counter("commits_local_only_total", "Commits acknowledged without the synchronous standby.", "cluster"),
		closed:       counter("clients_closed_total", "Clients that were disconnected because they were over a limit of time, by its name.", "cluster", "limit"),
		resets:       counter("opaque_resets_total", "Connections that a client gave back although a statement may have left something on them that cannot be seen, by what became of them (kept: behind DISCARD ALL; closed: that may not remove all of it).", "cluster", "connection"),
		cancels:      counter("cancel_requests_total", "Cancel requests by who sent them (client, or peer: passed on by another process) and what became of them (found: the key of a client here; forwarded to the process that it names, failed: not taken there; unknown; misdirected: passed on already, to the wrong process).", "source", "result"),
	}
	for _, c := range []prometheus.Collector{
		m.statements, m.routes, m.shadow, m.reroutes, m.seconds, m.overhead, m.hold, m.freshDelay, m.held, m.clients,
		m.pinned, m.logins, m.misroutes, m.hintsIgnored, m.unproven, m.moved, m.localOnly, m.closed, m.cancels, m.resets,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, method := range []string{"scram-sha-256", "md5"} {
		for _, result := range []string{"ok", "denied"} {
			m.logins.WithLabelValues(method, result)
		}
	}
	for _, result := range []string{cancelFound, cancelUnknown, cancelForwarded, cancelFailed} {
		m.cancels.WithLabelValues("client", result)
	}
	for _, result := range []string{cancelFound, cancelUnknown, cancelMisdirected} {
		m.cancels.WithLabelValues("peer", result)
	}
	return m, nil
}

// clusterMetrics are the series of one cluster, resolved once.
type clusterMetrics struct {
	m            *Metrics
	name         string
	routes       counters
	shadow       counters
	seconds      [targets]prometheus.Observer
	overhead     prometheus.Observer
	reroutes     *prometheus.CounterVec
	holdReleased prometheus.Observer
	holdTimeout  prometheus.Observer
	held         prometheus.Gauge
	hintsIgnored prometheus.Counter
	unproven     prometheus.Counter
	moved        prometheus.Counter
	misroutes    prometheus.Counter
	localOnly    prometheus.Counter
	closed       [timeLimits]prometheus.Counter
	resetKept    prometheus.Counter
	resetClosed  prometheus.Counter
}

// maxReasons is more than there are reasons; NewMetrics holds it to that.
const maxReasons = 64

// targets is how many targets there are.
const targets = int(router.TargetLocal) + 1

// cluster resolves the series of one cluster; those of the closed lists that are certain to
// come start at zero.
func (m *Metrics) cluster(name string) *clusterMetrics {
	c := &clusterMetrics{
		m: m, name: name, reroutes: m.reroutes, overhead: m.overhead.WithLabelValues(name),
		holdReleased: m.hold.WithLabelValues(name, "released"), holdTimeout: m.hold.WithLabelValues(name, "timeout"),
		held: m.held.WithLabelValues(name), hintsIgnored: m.hintsIgnored.WithLabelValues(name),
		unproven: m.unproven.WithLabelValues(name), moved: m.moved.WithLabelValues(name), misroutes: m.misroutes.WithLabelValues(name), localOnly: m.localOnly.WithLabelValues(name),
		closed: closedBy(m.closed, name), resetKept: m.resets.WithLabelValues(name, "kept"), resetClosed: m.resets.WithLabelValues(name, "closed"),
	}
	c.routes.vec, c.routes.name = m.routes, name
	c.shadow.vec, c.shadow.name = m.shadow, name
	for _, t := range []router.Target{router.TargetPrimary, router.TargetStandby} {
		c.seconds[t] = m.seconds.WithLabelValues(name, t.String())
	}
	c.seconds[router.TargetLocal] = c.seconds[router.TargetPrimary]
	c.seconds[router.TargetNone] = c.seconds[router.TargetPrimary]
	for _, cause := range []string{causeReadOnly, causeConflict, causeLost} {
		m.reroutes.WithLabelValues(name, cause)
	}
	m.clients.WithLabelValues(name, "connected")
	for p := router.PinNone + 1; p <= router.PinSequence; p++ {
		m.pinned.WithLabelValues(name, p.String())
	}
	return c
}

// waitedForFresh measures how long a read waited until a standby was fresh enough for it; reads that
// did not wait, or gave up and went to the primary, are not counted.
func (s *session) waitedForFresh(try *attempt, d router.Decision) {
	if try.freshEnd == 0 || d.Target != router.TargetStandby {
		return
	}
	began := try.freshEnd - int64(s.target.FreshnessWait(s.consistency()))
	waited := time.Duration(health.Clock() - began)
	s.cluster.metrics.m.freshDelay.WithLabelValues(s.cluster.Name, d.Node.Name).Observe(waited.Seconds())
}

// counters are the series of a vector labelled cluster, target and reason, each resolved at its first use.
type counters struct {
	vec   *prometheus.CounterVec
	name  string
	table [targets][maxReasons]atomic.Pointer[prometheus.Counter]
}

// at is the series of a target and reason.
func (c *counters) at(t router.Target, r router.Reason) prometheus.Counter {
	if p := c.table[t][r].Load(); p != nil {
		return *p
	}
	counter := c.vec.WithLabelValues(c.name, t.String(), r.String())
	c.table[t][r].Store(&counter)
	return counter
}

// ofNode resolves the series of the statements that one node answers, by class.
func (m *Metrics) ofNode(cluster, node string) (c [router.ClassPrimary + 1]prometheus.Counter) {
	for class := range c {
		c[class] = m.statements.WithLabelValues(cluster, node, router.Class(class).String())
	}
	return c
}

// countPin counts the session under the pin that it has now.
func (s *session) countPin() {
	if p := s.st.held(); p != s.pinShown {
		s.showPin(p)
	}
}

// showPin counts the session under another pin.
func (s *session) showPin(p router.Pin) {
	pinned := s.srv.metrics.pinned
	if s.pinShown != router.PinNone {
		pinned.WithLabelValues(s.cluster.Name, s.pinShown.String()).Dec()
	}
	if p != router.PinNone {
		pinned.WithLabelValues(s.cluster.Name, p.String()).Inc()
	}
	s.pinShown = p
	s.figures.shows(p)
}

// cancelled counts a cancel request.
func (m *Metrics) cancelled(source, result string) { m.cancels.WithLabelValues(source, result).Inc() }

// login counts a login.
func (m *Metrics) login(method, result string) { m.logins.WithLabelValues(method, result).Inc() }

// clientStarts and clientEnds count clients.
func (m *Metrics) clientStarts(cluster string) {
	m.clients.WithLabelValues(cluster, "connected").Inc()
}

// clientEnds counts a client that left.
func (m *Metrics) clientEnds(cluster string) { m.clients.WithLabelValues(cluster, "connected").Dec() }

// observe counts one answered chunk and returns the present time.
func (c *Cluster) observe(ch *chunk, l *lease, d router.Decision, began, sentAt int64) int64 {
	now := health.Clock()
	if !ch.executes || ch.unit == nil || d.Node == nil {
		return now
	}
	cm := c.metrics
	cm.routes.at(d.Target, d.Reason).Inc()
	l.statements[ch.unit.Class].Inc()
	cm.seconds[d.Target].Observe(float64(now-began) / 1e9)
	cm.overhead.Observe(float64(sentAt-began) / 1e9)
	return now
}
