package catalog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts the reads of all clusters' catalogs. A nil *Metrics counts nothing.
type Metrics struct {
	loads   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	reg     prometheus.Registerer
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pgweir_catalog_loads_total",
			Help: "Reads of a database's catalog, by result: ok or error.",
		}, []string{"cluster", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pgweir_catalog_load_seconds",
			Help:    "How long reading a database's catalog took.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}, []string{"cluster"}),
		reg: reg,
	}
	reg.MustRegister(m.loads, m.seconds)
	return m
}

// Watch makes the series of a manager's cluster exist and its gauges be collected; stop
// takes the gauges away again.
func (m *Metrics) Watch(manager *Manager) (stop func()) {
	if m == nil {
		return func() {}
	}
	cluster := manager.cfg.Cluster
	m.loads.WithLabelValues(cluster, "ok")
	m.loads.WithLabelValues(cluster, "error")
	m.seconds.WithLabelValues(cluster)
	c := newGauges(manager)
	m.reg.MustRegister(c)
	return func() { m.reg.Unregister(c) }
}

// loaded counts a successful read.
func (m *Metrics) loaded(cluster string, took time.Duration) {
	if m != nil {
		m.loads.WithLabelValues(cluster, "ok").Inc()
		m.seconds.WithLabelValues(cluster).Observe(took.Seconds())
	}
}

// failed counts a failed read.
func (m *Metrics) failed(cluster string) {
	if m != nil {
		m.loads.WithLabelValues(cluster, "error").Inc()
	}
}

// gauges shows one manager's views at the moment of a scrape.
type gauges struct {
	manager    *Manager
	age, views *prometheus.Desc
}

// newGauges describes the gauges of a manager's cluster.
func newGauges(manager *Manager) *gauges {
	labels := prometheus.Labels{"cluster": manager.cfg.Cluster}
	return &gauges{
		manager: manager,
		age:     prometheus.NewDesc("pgweir_catalog_age_seconds", "Age of the oldest catalog view in use.", nil, labels),
		views:   prometheus.NewDesc("pgweir_catalog_views", "Databases of which a catalog view is kept.", nil, labels),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.age
	ch <- g.views
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	age, views := g.manager.oldest(time.Now())
	ch <- prometheus.MustNewConstMetric(g.age, prometheus.GaugeValue, age.Seconds())
	ch <- prometheus.MustNewConstMetric(g.views, prometheus.GaugeValue, float64(views))
}
