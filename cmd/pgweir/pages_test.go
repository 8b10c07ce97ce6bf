package main

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"pgweir/health"
	"pgweir/internal/admin/metricstest"
	"pgweir/internal/catalog"
	"pgweir/proxy"
	"pgweir/proxy/pool"
	"pgweir/router"
)

// The pages of docs that say what the code says. go test ./cmd/pgweir -run Page -update writes
// them again.

// checkPage compares a page with what the code says, or writes it.
func checkPage(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says; go test ./cmd/pgweir -run Page -update", file)
	}
}

// checkRegion is checkPage for the part of a page between two marks.
func checkRegion(t *testing.T, file, name, want string) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no marks for %q", file, name)
	}
	checkPage(t, file, before+begin+want+end+after)
}

// A family is one metric as the page shows it.
type family struct {
	name, help, kind string
	labels           []string
	series           int // of one set of labels: buckets, sum and count of a histogram
}

// recorder registers collectors and remembers them.
type recorder struct {
	prometheus.Registerer
	all []prometheus.Collector
}

// Register is for prometheus.Registerer.
func (r *recorder) Register(c prometheus.Collector) error {
	r.all = append(r.all, c)
	return r.Registerer.Register(c)
}

// MustRegister is for prometheus.Registerer.
func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	r.all = append(r.all, cs...)
	r.Registerer.MustRegister(cs...)
}

// describe reads what a collector says of itself.
func describe(t *testing.T, c prometheus.Collector) map[string]family {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() { c.Describe(descs); close(descs) }()
	form := regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	constant := regexp.MustCompile(`(\w+)="`)
	out := map[string]family{}
	for d := range descs {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a description of an unknown form: %s", d)
		}
		name, _ := strconv.Unquote(m[1])
		help, _ := strconv.Unquote(m[2])
		if !strings.HasPrefix(name, "pgweir_") {
			continue
		}
		f := family{name: name, help: help}
		for _, l := range constant.FindAllStringSubmatch(m[3], -1) {
			f.labels = append(f.labels, l[1])
		}
		if m[4] != "" {
			f.labels = append(f.labels, strings.Split(m[4], ",")...)
		}
		out[name] = f
	}
	return out
}

// provoke makes one series of every vector, so that its kind can be gathered.
func provoke(t *testing.T, c prometheus.Collector) {
	t.Helper()
	var labels []string
	for _, f := range describe(t, c) {
		for _, l := range f.labels {
			labels = append(labels, l+"-x")
		}
	}
	switch v := c.(type) {
	case *prometheus.CounterVec:
		v.WithLabelValues(labels...)
	case *prometheus.GaugeVec:
		v.WithLabelValues(labels...)
	case *prometheus.HistogramVec:
		v.WithLabelValues(labels...)
	}
}

// families are the metrics of a whole process, by name: what newServer registers, each with its kind.
func families(t *testing.T) map[string]family {
	t.Helper()
	srv := manyClusters(t)
	all := describe(t, srv.registry)
	reg := prometheus.NewRegistry()
	rec := &recorder{Registerer: reg}
	rec.MustRegister(buildMetric(), srv.reloads)
	if _, err := pool.NewMetrics(rec); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.NewMetrics(rec); err != nil {
		t.Fatal(err)
	}
	health.NewMetrics(rec)
	stop := catalog.NewMetrics(rec).Watch(srv.clusters[0].catalog)
	defer stop()
	for _, c := range rec.all {
		provoke(t, c)
		for name, f := range describe(t, c) {
			all[name] = f
		}
	}
	gathered, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	metricstest.Lint(t, reg)
	for _, g := range gathered {
		f := all[g.GetName()]
		f.kind, f.series = strings.ToLower(g.GetType().String()), 1
		if h := g.GetMetric()[0].GetHistogram(); g.GetType() == dto.MetricType_HISTOGRAM {
			f.series = len(h.GetBucket()) + 3 // and +Inf, sum, count
		}
		all[g.GetName()] = f
	}
	for name, f := range all {
		if f.kind == "" { // a collector that shows what is there: pools
			f.kind, f.series = "gauge", 1
			all[name] = f
		}
	}
	return all
}

// manyClusters is a process with 3 clusters of 5 nodes that was wired and never ran.
func manyClusters(t *testing.T) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pgweir.yaml")
	var yaml strings.Builder
	yaml.WriteString("listen: [\"127.0.0.1:0\"]\nadmin: off\nclusters:\n")
	for c := range 3 {
		fmt.Fprintf(&yaml, "  c%d: {monitor: {password: x}, nodes: [", c)
		for n := range 5 {
			fmt.Fprintf(&yaml, "c%d-n%d, ", c, n)
		}
		yaml.WriteString("]}\n")
	}
	yaml.WriteString("databases: {\"*\": {cluster: c0}}\n")
	if err := os.WriteFile(file, []byte(yaml.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	src := &Source{File: file, Environ: map[string]string{}}
	cfg, err := src.Load()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := newServer(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

// closed says how many values a label takes at most where 3 clusters have 5 nodes each: its
// closed list, or the number of what there is. Labels of pools are counted by poolSeries.
func closed() map[string]int {
	return map[string]int{
		"cluster": 3, "class": 3, "target": 3, "reason": len(router.Reasons()), "cause": 3, "outcome": 4, "role": 4,
		"state": 3, "limit": 5, "connection": 2, "method": 3, "result": 5, "source": 2, "version": 1, "revision": 1, "goversion": 1,
	}
}

// poolSeries is for how many sets of labels pools have series at most: the cap that
// TestMetrics of proxy/pool holds, and one more for each of 15 nodes.
const poolSeries = 400 + 15

func TestMetricsPage(t *testing.T) {
	all := families(t)
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat `/metrics` on the admin address shows, beside the usual `go_` and `process_` metrics. Names and labels are part of\nthe API: nothing is renamed or removed within a major version. Times are seconds, sizes bytes. Histograms have classic\nbuckets and native ones. This page is generated from the code (`go test ./cmd/pgweir -run Page -update`).\n\n")
	b.WriteString("Labels come from closed lists or from the configuration: `node` is the configured or discovered name, `reason` stands in\n[reasons.md](reasons.md), `class` is `session`, `read` or `primary`. No label ever holds SQL, an application name or a client's\naddress. `database` and `user` are on gauges of pools only; of more than 400 pools the rest is summed up per node under `(other)`.\n\n")
	b.WriteString("| name | type | labels | says |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		labels := "–"
		if len(f.labels) > 0 {
			labels = "`" + strings.Join(f.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.kind, labels, f.help)
	}
	checkPage(t, "../../docs/metrics.md", b.String())
}

// TestSeriesBudget adds up the worst case of every metric: 3 clusters of 5 nodes each, 50
// databases and 20 users give at most 10,000 series.
func TestSeriesBudget(t *testing.T) {
	sum := 0
	for name, f := range families(t) {
		n := f.series
		if slices.Contains(f.labels, "database") {
			n *= poolSeries
			if slices.Contains(f.labels, "state") {
				n *= closed()["state"]
			}
			sum += n
			continue
		}
		for _, l := range f.labels {
			values, ok := closed()[l]
			switch {
			case l == "node": // names of a node stand beside its cluster
				values = 5
			case !ok:
				t.Errorf("%s: how many values the label %q takes is not known; add it to closed", name, l)
			}
			n *= values
		}
		sum += n
	}
	t.Logf("at worst %d series", sum)
	if sum > 10_000 {
		t.Errorf("at worst %d series; 10000 is the budget", sum)
	}
}

// settingsTable is one table of configuration.md: the keys of a section with default and meaning.
func settingsTable(s section, from string, restart func(path string) bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| key | default | changes at | says |\n|---|---|---|---|\n")
	var walk func(prefix string, s section)
	walk = func(prefix string, s section) {
		for _, f := range s {
			path := joinPath(prefix, f.key)
			switch v := f.val.(type) {
			case section:
				walk(path, v)
				continue
			case adminValue:
				walk(path, v.fields())
				continue
			case listeners, clusters, databases, users, nodesOf, discoverOf, peers:
				continue
			}
			def := "–"
			f.val.show(path, func(_, text string, _ bool) {
				if text != "" && path != "addr" && from != "peers[0]" {
					def = "`" + text + "`"
				}
			})
			when := "reload"
			if restart(strings.TrimPrefix(from+"."+path, ".")) {
				when = "restart"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", path, def, when, strings.ReplaceAll(f.doc, "|", "\\|"))
		}
	}
	walk("", s)
	return b.String()
}

func TestConfigurationPage(t *testing.T) {
	const file = "../../docs/configuration.md"
	c := DefaultConfig()
	atTop := map[string]bool{}
	for _, f := range append(tuning(&c.Tuning, ""), overrides(&c.Overrides)...) {
		atTop[f.key] = true
	}
	process := slices.DeleteFunc(schema(c, ""), func(f field) bool { return atTop[f.key] })
	checkRegion(t, file, "process", settingsTable(process, "", needsRestart))
	checkRegion(t, file, "cluster", settingsTable(tuning(&c.Tuning, ""), "clusters.main", needsRestart))
	checkRegion(t, file, "level", settingsTable(overrides(&c.Overrides), "databases.app", needsRestart))
	l := Listener{}
	checkRegion(t, file, "listener", settingsTable(listeners{&c.Listen, &c.TLS, ""}.fields(&l), "listen[0]", needsRestart))
	checkRegion(t, file, "peer", settingsTable(peers{}.fields(&Peer{}), "peers[0]", needsRestart))
	n := Node{Port: 5432, Weight: 1, Reads: true, Promote: true}
	checkRegion(t, file, "node", settingsTable(nodeFields(&n), "clusters.main.nodes[0]", needsRestart))
	checkRegion(t, file, "database", settingsTable(databases{c}.fields(&Database{})[:2], "databases.app", needsRestart))
	checkRegion(t, file, "user", settingsTable(users{c, ""}.fields(&User{})[:2], "users.app", needsRestart))
}

// markdown are the pages of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md", "../../internal/e2e/drivers/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// testNames are the names of all tests, fuzz targets and benchmarks of the module.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	form := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range form.FindAllSubmatch(text, -1) {
			out[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPagesHoldTogether holds that what pages lead to is there: files behind links, and the tests
// that a page names as holding a claim.
func TestPagesHoldTogether(t *testing.T) {
	tests := testNames(t)
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	test := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	for _, page := range markdown(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s leads to %s, which is not there", page, m[1])
			}
		}
		for _, m := range test.FindAllStringSubmatch(string(text), -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, and there is no such test", page, m[1])
			}
		}
	}
}
