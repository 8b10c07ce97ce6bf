// Package metricstest answers the question "do these metrics keep the rules?" for tests: those
// of Prometheus and those of pgweir's own names.
package metricstest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

// withoutCluster are the metrics of the process as a whole.
var withoutCluster = []string{"pgweir_build_info", "pgweir_cancel_requests_total", "pgweir_config_reloads_total", "pgweir_logins_total"}

// forbidden are labels whose values nobody bounds, or that tell about people.
var forbidden = []string{"sql", "query", "statement", "fingerprint", "application_name", "client", "client_addr", "address", "pid"}

// Lint fails t for every metric of g that breaks a rule: Prometheus's own (promlint), the
// prefix pgweir_, the label cluster on everything but what belongs to the process, database
// and user on gauges of pools and clients only, and no label that SQL or a client fills.
// Metrics of the Go runtime and the process are left alone.
func Lint(t testing.TB, g prometheus.Gatherer) {
	t.Helper()
	for _, problem := range Problems(t, g) {
		t.Error(problem)
	}
}

// Problems lists what Lint fails for.
func Problems(t testing.TB, g prometheus.Gatherer) []string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatalf("gathering metrics: %v", err)
	}
	var out []string
	for _, f := range families {
		if !foreign(f.GetName()) {
			out = append(out, familyProblems(f)...)
		}
	}
	linted, err := testutil.GatherAndLint(g)
	if err != nil {
		t.Fatalf("linting metrics: %v", err)
	}
	for _, p := range linted {
		if !foreign(p.Metric) {
			out = append(out, p.Metric+": "+p.Text)
		}
	}
	return out
}

// foreign says whether a metric is one of client_golang's own collectors.
func foreign(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
}

// familyProblems checks one metric against pgweir's rules.
func familyProblems(f *dto.MetricFamily) []string {
	var out []string
	name := f.GetName()
	fail := func(format string, args ...any) { out = append(out, name+": "+fmt.Sprintf(format, args...)) }
	if !strings.HasPrefix(name, "pgweir_") {
		fail("the prefix pgweir_ is missing")
	}
	labels := map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = true
		}
	}
	if !labels["cluster"] && !slices.Contains(withoutCluster, name) {
		fail("has no label cluster")
	}
	perDatabase := f.GetType() == dto.MetricType_GAUGE && (strings.HasPrefix(name, "pgweir_pool_") || strings.HasPrefix(name, "pgweir_clients"))
	if (labels["database"] || labels["user"]) && !perDatabase {
		fail("the labels database and user are for gauges of pools and clients only")
	}
	for _, l := range forbidden {
		if labels[l] {
			fail("the label %s is unbounded or tells about people", l)
		}
	}
	return out
}

// Series counts the series of pgweir's own metrics as Prometheus would store them, a bucket of
// a classic histogram being one.
func Series(t testing.TB, g prometheus.Gatherer) int {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatalf("gathering metrics: %v", err)
	}
	n := 0
	for _, f := range families {
		if foreign(f.GetName()) {
			continue
		}
		for _, m := range f.GetMetric() {
			switch {
			case m.GetHistogram() != nil:
				n += len(m.GetHistogram().GetBucket()) + 3 // +Inf, sum, count
			case m.GetSummary() != nil:
				n += len(m.GetSummary().GetQuantile()) + 2
			default:
				n++
			}
		}
	}
	return n
}
