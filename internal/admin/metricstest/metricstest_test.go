package metricstest

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// TestProblems holds that each rule is found broken, and nothing else.
func TestProblems(t *testing.T) {
	reg := prometheus.NewRegistry()
	with := promauto.With(reg)
	with.NewGaugeVec(prometheus.GaugeOpts{Name: "pgweir_pool_size", Help: "Size."}, []string{"cluster", "database", "user"}).WithLabelValues("a", "b", "c")
	with.NewCounter(prometheus.CounterOpts{Name: "pgweir_config_reloads_total", Help: "Reloads."})
	with.NewCounterVec(prometheus.CounterOpts{Name: "pgweir_things", Help: "Things."}, []string{"cluster"}).WithLabelValues("a")
	with.NewCounterVec(prometheus.CounterOpts{Name: "pgweir_bad_total", Help: "Bad."}, []string{"user", "sql"}).WithLabelValues("a", "b")
	with.NewGauge(prometheus.GaugeOpts{Name: "weir", Help: "No prefix."})
	got := Problems(t, reg)
	slices.Sort(got)
	want := []string{
		"pgweir_bad_total: has no label cluster",
		"pgweir_bad_total: the label sql is unbounded or tells about people",
		"pgweir_bad_total: the labels database and user are for gauges of pools and clients only",
		`pgweir_things: counter metrics should have "_total" suffix`,
		"weir: has no label cluster",
		"weir: the prefix pgweir_ is missing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if n := Series(t, reg); n != 5 {
		t.Errorf("%d series, want 5", n)
	}
}
