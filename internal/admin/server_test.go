package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/goleak"
)

// fixed is a Source that always says the same.
type fixed struct {
	clusters []Cluster
	unready  []string
}

func (f fixed) Clusters() []Cluster { return f.clusters }
func (f fixed) Unready() []string   { return f.unready }

// shop is a cluster in good health.
func shop() Cluster {
	return Cluster{
		Name: "shop", Seen: true, Primary: "pg-a", Epoch: 3, System: 7412345678901234567, Timeline: 2, Clients: 12,
		Nodes: []Node{
			{Name: "pg-a", Host: "pg-a", Port: 5432, Role: "primary", State: "up", Trusted: true, Reads: true, Timeline: 2, Version: 150019},
			{Name: "pg-b", Host: "pg-b", Port: 5433, Role: "standby", State: "up", Trusted: true, Reads: true, Timeline: 2, LagBytes: 20 << 20, Lag: 3 * time.Second, Zone: "eu-1b", Tags: []string{"bi"}},
		},
		Events: []Event{{At: time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC), Text: "pg-a is primary on timeline 2"}},
	}
}

// ledger is a cluster without a primary, whose names try to be markup.
func ledger() Cluster {
	return Cluster{
		Name: "ledger<b>", Seen: true, Why: "pg-x down 12 s (connection refused)", Held: 4,
		Nodes: []Node{
			{Name: "pg-x", Host: "pg-x", Port: 5432, Role: "unknown", State: "down", Detail: "<script>alert(1)</script>", LagBytes: -1, Reads: true},
			{Name: "pg-y", Host: "pg-y", Port: 5432, Role: "standby", State: "up", Trusted: true, Reads: true, LagBytes: -1},
		},
	}
}

// ask sends one request to a server over src.
func ask(t *testing.T, src Source, method, path string) (status int, body string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	routes := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: routesMetric, Help: "Units."}, []string{"cluster", "target", "reason"})
	routes.WithLabelValues("shop", "standby", "read").Add(12345)
	routes.WithLabelValues("shop", "primary", "write").Add(50)
	routes.WithLabelValues("shop", "primary", "locking")
	promauto.With(reg).NewHistogram(prometheus.HistogramOpts{Name: "pgweir_test_seconds", Help: "Time.", NativeHistogramBucketFactor: 1.1}).Observe(1)
	s, err := New(Config{Source: src, Gatherer: reg, Build: "pgweir test", Started: time.Now().Add(-time.Minute), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	return rec.Code, rec.Body.String()
}

// TestStatus holds the status of every address in good and bad times.
func TestStatus(t *testing.T) {
	good, bad := fixed{clusters: []Cluster{shop()}}, fixed{clusters: []Cluster{shop(), ledger()}}
	early := fixed{clusters: []Cluster{{Name: "shop"}}, unready: []string{"not listening yet"}}
	for _, c := range []struct {
		src    Source
		method string
		path   string
		want   int
	}{
		{good, "GET", "/livez", 200},
		{early, "GET", "/livez", 200},
		{good, "GET", "/readyz", 200},
		{bad, "GET", "/readyz", 200}, // ready without a primary
		{early, "GET", "/readyz", 503},
		{good, "GET", "/primary", 200},
		{good, "HEAD", "/primary", 200},
		{good, "OPTIONS", "/primary", 200},
		{bad, "GET", "/primary", 503},
		{bad, "GET", "/primary?cluster=shop", 200},
		{bad, "GET", "/primary?cluster=nowhere", 404},
		{good, "GET", "/replica", 200},
		{good, "GET", "/replica?lag=16MB", 503},
		{good, "GET", "/replica?lag=20MB", 200},
		{good, "GET", "/replica?lag=20971520", 200},
		{good, "GET", "/replica?lag=much", 400},
		{good, "GET", "/replica?lag=99999999999TB", 400},
		{bad, "GET", "/replica", 200},
		{bad, "GET", "/replica?lag=1TB", 503}, // a lag nobody knows is no lag below a bound
		{bad, "GET", "/read-only", 200},
		{early, "GET", "/read-only", 503},
		{good, "GET", "/cluster", 200},
		{good, "GET", "/", 200},
		{good, "GET", "/metrics", 200},
		{good, "GET", "/switchover/prepare", 404},
		{good, "POST", "/switchover/prepare", 404},
		{good, "POST", "/switchover/release", 404},
		{good, "POST", "/", 405},
		{good, "DELETE", "/primary", 405},
		{good, "GET", "/nothing", 404},
	} {
		if got, body := ask(t, c.src, c.method, c.path); got != c.want {
			t.Errorf("%s %s: %d, want %d\n%s", c.method, c.path, got, c.want, body)
		}
	}
}

// TestReadyzSaysWhatIsMissing holds the words.
func TestReadyzSaysWhatIsMissing(t *testing.T) {
	_, body := ask(t, fixed{clusters: []Cluster{{Name: "shop"}}, unready: []string{"not listening yet"}}, "GET", "/readyz")
	if want := "not listening yet\ncluster \"shop\" was not looked at yet\n"; body != want {
		t.Errorf("got %q, want %q", body, want)
	}
}

// TestClusterJSON holds Patroni's shape.
func TestClusterJSON(t *testing.T) {
	var one struct {
		Scope   string
		System  string `json:"system_identifier"`
		Members []struct {
			Name, Role, State, Host string
			Port                    int
			Lag                     any
			Tags                    map[string]string
		}
	}
	_, body := ask(t, fixed{clusters: []Cluster{shop()}}, "GET", "/cluster")
	if err := json.Unmarshal([]byte(body), &one); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(one); got != "{shop 7412345678901234567 [{pg-a leader running pg-a 5432 <nil> map[]} {pg-b replica streaming pg-b 5433 2.097152e+07 map[bi:true zone:eu-1b]}]}" {
		t.Errorf("got %s", got)
	}
	_, body = ask(t, fixed{clusters: []Cluster{shop(), ledger()}}, "GET", "/cluster")
	for _, want := range []string{`"clusters"`, `"lag": "unknown"`, `"state": "down"`, `"statements_held": 4`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing in %s", want, body)
		}
	}
}

// TestPage holds that the status page says what matters and takes no markup from names.
func TestPage(t *testing.T) {
	_, body := ask(t, fixed{clusters: []Cluster{shop(), ledger()}}, "GET", "/")
	for _, want := range []string{
		"Writes go to pg-a.", "no primary: pg-x down 12 s (connection refused)", "4 statements wait for a primary",
		"20 MB, 3s", "15.19", "pg-a is primary on timeline 2", "12 345", "99.6&nbsp;%", "&lt;script&gt;",
	} {
		if !strings.Contains(strings.ReplaceAll(body, " %", "&nbsp;%"), want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, no := range []string{"<script", "ledger<b>", "locking"} {
		if strings.Contains(body, no) {
			t.Errorf("%q is there", no)
		}
	}
}

// TestServe holds that a server ends with its context, without leaving anything behind, and
// tells when its listener breaks.
func TestServe(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := New(Config{Source: fixed{}, Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + ln.Addr().String() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "alive\n" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %q, %v", body, res.Header)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("after the context ended: %v", err)
	}

	broken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken.Close()
	if err := s.Serve(t.Context(), broken); err == nil {
		t.Error("a broken listener is no error")
	}
}

// TestNewWantsEverything holds that a server without its parts is an error.
func TestNewWantsEverything(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Source") || !strings.Contains(err.Error(), "Gatherer") {
		t.Errorf("got %v", err)
	}
}
