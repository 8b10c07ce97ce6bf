package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const (
	dashboardFile = "grafana/dashboards/overview.json"
	rulesFile     = "prometheus/rules.yml"
)

// query is one PromQL expression that must return data while pgweir works.
type query struct {
	where string // panel or rule, for messages
	expr  string // with Grafana's variables, if it has any
}

// dashboard is the part of Grafana's format that holds queries.
type dashboard struct {
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name  string          `json:"name"`
			Type  string          `json:"type"`
			Query json.RawMessage `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Name string `json:"name"`
			Expr string `json:"expr"`
		} `json:"list"`
	} `json:"annotations"`
}

// panel is a panel, or a row with the panels that it hides.
type panel struct {
	Title   string `json:"title"`
	Type    string `json:"type"`
	Panels  []panel
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

// readDashboard reads the dashboard.
func readDashboard(t *testing.T) dashboard {
	t.Helper()
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	return d
}

// labelValues is the query of a variable: the series and the label it lists.
var labelValues = regexp.MustCompile(`^label_values\((.+), *(\w+)\)$`)

// dashboardQueries lists every query of the dashboard: panels, annotations and variables.
func dashboardQueries(t *testing.T) []query {
	t.Helper()
	d := readDashboard(t)
	var out []query
	var walk func(panels []panel)
	walk = func(panels []panel) {
		for _, p := range panels {
			walk(p.Panels)
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %q asks nothing", p.Title)
			}
			for _, target := range p.Targets {
				out = append(out, query{where: "panel " + p.Title, expr: target.Expr})
			}
		}
	}
	walk(d.Panels)
	for _, a := range d.Annotations.List {
		out = append(out, query{where: "annotation " + a.Name, expr: a.Expr})
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		var q struct {
			Query string `json:"query"`
		}
		if err := json.Unmarshal(v.Query, &q); err != nil {
			t.Errorf("variable %s: %v", v.Name, err)
			continue
		}
		m := labelValues.FindStringSubmatch(q.Query)
		if m == nil {
			t.Errorf("variable %s: %q is no label_values", v.Name, q.Query)
			continue
		}
		out = append(out, query{where: "variable " + v.Name, expr: "count by (" + m[2] + ") (" + m[1] + ")"})
	}
	return out
}

// comparison is the end of an alert's expression.
var comparison = regexp.MustCompile(`^(.+?) (?:==|!=|<=|>=|<|>) [0-9.]+$`)

// ruleQueries lists every rule: what is recorded, and of alerts the value that is compared.
func ruleQueries(t *testing.T) []query {
	t.Helper()
	content, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Record, Alert, Expr string
			}
		}
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatalf("%s: %v", rulesFile, err)
	}
	var out []query
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				out = append(out, query{where: "record " + r.Record, expr: r.Expr}, query{where: "record " + r.Record, expr: r.Record})
				continue
			}
			m := comparison.FindStringSubmatch(r.Expr)
			if m == nil {
				t.Errorf("alert %s: %q does not compare one value with one number", r.Alert, r.Expr)
				continue
			}
			out = append(out, query{where: "alert " + r.Alert, expr: m[1]})
		}
	}
	return out
}

// allQueries lists everything that must return data.
func allQueries(t *testing.T) []query {
	t.Helper()
	out := append(dashboardQueries(t), ruleQueries(t)...)
	if len(out) < 40 {
		t.Fatalf("only %d queries found", len(out))
	}
	return out
}

// metricName finds the names of series in an expression.
var metricName = regexp.MustCompile(`\b(?:(?:pgweir|process|go)_[a-z_]+|up)\b`)

// published lists the series that pgweir publishes, by what they are.
func published() map[string]string {
	out := map[string]string{
		"up":                            "gauge",
		"process_cpu_seconds_total":     "counter",
		"process_resident_memory_bytes": "gauge",
		"process_open_fds":              "gauge",
		"process_max_fds":               "gauge",
		"go_goroutines":                 "gauge",
		"go_memstats_heap_inuse_bytes":  "gauge",
	}
	for kind, names := range map[string]string{
		"counter": "statements_total routes_total reroutes_total shadow_statements_total primary_changes_total logins_total config_reloads_total " +
			"misroutes_seen_total hints_ignored_total freshness_unproven_total freshness_nudges_total lost_marks_total commits_local_only_total",
		"gauge": "node_up node_role node_timeline node_replay_lag_bytes node_replay_lag_seconds node_fresh_age_seconds split_brain writes_held " +
			"pool_connections pool_waiting pool_size clients pinned_clients primary_unconfirmed build_info",
		"histogram": "statement_seconds overhead_seconds lease_wait_seconds hold_seconds freshness_delay_seconds",
	} {
		for _, name := range strings.Fields(names) {
			if kind != "histogram" {
				out["pgweir_"+name] = kind
				continue
			}
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				out["pgweir_"+name+part] = "counter"
			}
		}
	}
	return out
}

// TestQueriesNamePublishedSeries holds the names, and that counters are only looked at through a
// function of their change.
func TestQueriesNamePublishedSeries(t *testing.T) {
	known := published()
	for _, q := range allQueries(t) {
		names := metricName.FindAllStringIndex(q.expr, -1)
		if len(names) == 0 && !strings.Contains(q.expr, "pgweir:") {
			t.Errorf("%s: no series in %q", q.where, q.expr)
		}
		for _, at := range names {
			name := q.expr[at[0]:at[1]]
			kind, ok := known[name]
			if !ok {
				t.Errorf("%s: pgweir publishes no %s", q.where, name)
				continue
			}
			ranged := regexp.MustCompile(`(?:rate|increase|changes)\(` + name + `\b`).MatchString(q.expr)
			total := q.where == "panel Misroutes seen by clients" // whose text says that it counts from the start
			if kind == "counter" && !ranged && !total {
				t.Errorf("%s: %s is a counter, without rate or increase", q.where, name)
			}
			if kind == "gauge" && ranged {
				t.Errorf("%s: %s is a gauge, its rate says nothing", q.where, name)
			}
		}
	}
}

// TestDashboardIsWhole holds what Grafana needs to show the dashboard: panels that do not overlap,
// ids that differ, the data source of the provisioning.
func TestDashboardIsWhole(t *testing.T) {
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string `json:"uid"`
		Panels []struct {
			ID         int    `json:"id"`
			Title      string `json:"title"`
			Datasource struct{ UID string }
			Type       string                   `json:"type"`
			GridPos    struct{ H, W, X, Y int } `json:"gridPos"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("grafana/provisioning/datasources/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[int]string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice {
			t.Errorf("%q and %q have the same id", p.Title, other)
		}
		ids[p.ID] = p.Title
		if p.Type != "row" && !strings.Contains(string(source), "uid: "+p.Datasource.UID+"\n") {
			t.Errorf("%q: no data source %q is provisioned", p.Title, p.Datasource.UID)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q is wider than the page", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
