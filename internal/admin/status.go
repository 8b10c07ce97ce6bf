package admin

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
)

//go:embed status.html
var statusHTML string

// statusTemplate is the status page.
var statusTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"bytes": showBytes, "span": showSpan, "lag": showLag, "version": showVersion, "count": showCount,
	"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
}).Parse(statusHTML))

// page is what the template is given.
type page struct {
	Build    string
	Now      time.Time
	Up       time.Duration
	Unready  []string
	Clusters []clusterPage
	Complain string // metrics could not be gathered
}

// clusterPage is a cluster with its traffic.
type clusterPage struct {
	Cluster
	Traffic []traffic
}

// Trouble is what a person must know first, "" when all is well.
func (c clusterPage) Trouble() string {
	switch {
	case c.SplitBrain:
		return "split brain: two nodes of this cluster are writable"
	case !c.Seen:
		return "its nodes were not looked at yet"
	case c.Primary == "" && c.Why == "":
		return "no primary"
	case c.Primary == "":
		return "no primary: " + c.Why
	default:
		return ""
	}
}

// Grade is the colour of a node: good, warn or bad.
func (n Node) Grade() string {
	switch {
	case n.State == "down" || n.Role == "other":
		return "bad"
	case n.State == "up" && n.Trusted && n.Role != "unknown":
		return "good"
	default:
		return "warn"
	}
}

// traffic is how much went somewhere for one reason.
type traffic struct {
	Target, Reason string
	Count          float64
	Percent        float64 // of the cluster's
}

// status answers with the status page.
func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	p := page{Build: s.cfg.Build, Now: time.Now(), Unready: s.cfg.Source.Unready()}
	if !s.cfg.Started.IsZero() {
		p.Up = p.Now.Sub(s.cfg.Started)
	}
	families, err := s.cfg.Gatherer.Gather()
	if err != nil {
		p.Complain = err.Error()
	}
	byCluster := trafficOf(families)
	for _, c := range s.cfg.Source.Clusters() {
		p.Clusters = append(p.Clusters, clusterPage{Cluster: c, Traffic: byCluster[c.Name]})
	}
	var out bytes.Buffer
	if err := statusTemplate.Execute(&out, p); err != nil {
		s.cfg.Log.Error("rendering the status page", "error", err)
		http.Error(w, "the page could not be rendered; see the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = out.WriteTo(w)
}

// routesMetric counts units by cluster, target and reason.
const routesMetric = "pgweir_routes_total"

// trafficOf reads the routes out of the metrics, the most frequent first, without those that
// never happened.
func trafficOf(families []*dto.MetricFamily) map[string][]traffic {
	out, sum := map[string][]traffic{}, map[string]float64{}
	for _, f := range families {
		if f.GetName() != routesMetric {
			continue
		}
		for _, m := range f.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			if n := m.GetCounter().GetValue(); n > 0 {
				c := label["cluster"]
				out[c] = append(out[c], traffic{Target: label["target"], Reason: label["reason"], Count: n})
				sum[c] += n
			}
		}
	}
	for c, list := range out {
		for i := range list {
			list[i].Percent = 100 * list[i].Count / sum[c]
		}
		slices.SortFunc(list, func(a, b traffic) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Reason, b.Reason))
		})
	}
	return out
}

// showBytes is a size for people.
func showBytes(n int64) string {
	switch {
	case n < 0:
		return "unknown"
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d kB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MB", n>>20)
	default:
		return fmt.Sprintf("%d GB", n>>30)
	}
}

// showSpan is a time for people.
func showSpan(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

// showLag is how far a standby is behind; a primary has no lag.
func showLag(n Node) string {
	switch {
	case n.Role != "standby":
		return "–"
	case n.LagBytes < 0:
		return "unknown"
	case n.LagBytes == 0:
		return "none"
	default:
		return showBytes(n.LagBytes) + ", " + showSpan(n.Lag)
	}
}

// showVersion is a server_version_num as people write it.
func showVersion(n int) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}

// showCount is a count with spaces between thousands.
func showCount(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
