package pool

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries is the number of pools that have series of their own; the others are summed up per
// node under the names otherLabel.
const (
	maxSeries  = 400
	otherLabel = "(other)"
)

// Metrics is what pools count. The gauges are read off the pools when they are asked for, so
// that no lease touches them.
type Metrics struct {
	wait        *prometheus.HistogramVec
	connections *prometheus.Desc
	waiting     *prometheus.Desc
	size        *prometheus.Desc

	mu struct {
		sync.Mutex
		pools []*Pool
	}
}

// NewMetrics registers the metrics of pools.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"cluster", "node", "database", "user"}
	m := &Metrics{
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                        "pgweir_lease_wait_seconds",
			Help:                        "Time from asking for a connection to a node until having one, opening included.",
			Buckets:                     []float64{.0001, .001, .005, .01, .05, .1, .5, 1, 5, 30},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"cluster", "node"}),
		connections: prometheus.NewDesc("pgweir_pool_connections",
			"Connections to a node, by state: idle, leased or opening.", append(labels[:4:4], "state"), nil),
		waiting: prometheus.NewDesc("pgweir_pool_waiting",
			"Sessions waiting for a connection because the pool is full.", labels, nil),
		size: prometheus.NewDesc("pgweir_pool_size", "Largest number of connections of the pool.", labels, nil),
	}
	if err := reg.Register(m.wait); err != nil {
		return nil, err
	}
	if err := reg.Register(m); err != nil {
		return nil, err
	}
	return m, nil
}

// add has a pool counted from now on.
func (m *Metrics) add(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.pools = append(m.mu.pools, p)
}

// leaseWait is where the waits for a node are observed.
func (m *Metrics) leaseWait(cluster, node string) prometheus.Observer {
	return m.wait.WithLabelValues(cluster, node)
}

// Describe is for prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.connections
	ch <- m.waiting
	ch <- m.size
}

// series is the labels of one set of gauges.
type series struct{ cluster, node, database, user string }

// Collect is for prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	pools := append([]*Pool(nil), m.mu.pools...)
	m.mu.Unlock()
	sums := make(map[series]Stat)
	for _, p := range pools {
		for _, s := range p.Stats() {
			at := series{s.Cluster, s.NodeName, s.Entry, s.User}
			if _, known := sums[at]; !known && len(sums) >= maxSeries {
				at.database, at.user = otherLabel, otherLabel
			}
			sum := sums[at]
			sum.Size += s.Size
			sum.Idle += s.Idle
			sum.Leased += s.Leased
			sum.Opening += s.Opening
			sum.Waiting += s.Waiting
			sums[at] = sum
		}
	}
	for at, s := range sums {
		m.emit(ch, at, s)
	}
}

// emit sends the gauges of one pool.
func (m *Metrics) emit(ch chan<- prometheus.Metric, at series, s Stat) {
	gauge := func(d *prometheus.Desc, value int, more ...string) {
		labels := append([]string{at.cluster, at.node, at.database, at.user}, more...)
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	gauge(m.connections, s.Idle, "idle")
	gauge(m.connections, s.Leased, "leased")
	gauge(m.connections, s.Opening, "opening")
	gauge(m.waiting, s.Waiting)
	gauge(m.size, s.Size)
}
