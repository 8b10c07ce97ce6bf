package catalog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts the reads of all clusters' catalogs. A nil *Metrics counts nothing.
type Metrics struct {
	loads   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	age     *prometheus.Desc
	views   *prometheus.Desc
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
		age: prometheus.NewDesc("pgweir_catalog_age_seconds",
			"Age of the oldest catalog view in use.", []string{"cluster"}, nil),
		views: prometheus.NewDesc("pgweir_catalog_views",
			"Databases of which a catalog view is kept.", []string{"cluster"}, nil),
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
	c := &gauges{metrics: m, manager: manager}
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
	metrics *Metrics
	manager *Manager
}

// Describe sends nothing: the collector is unchecked, so that each cluster can have one.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	age, views := g.manager.oldest(time.Now())
	cluster := g.manager.cfg.Cluster
	ch <- prometheus.MustNewConstMetric(g.metrics.age, prometheus.GaugeValue, age.Seconds(), cluster)
	ch <- prometheus.MustNewConstMetric(g.metrics.views, prometheus.GaugeValue, float64(views), cluster)
}
