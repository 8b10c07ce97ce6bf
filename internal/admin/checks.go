package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// livez says that the process answers.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "alive")
}

// readyz says whether clients can be served, with one line for each thing that is missing.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	missing := s.cfg.Source.Unready()
	for _, c := range s.cfg.Source.Clusters() {
		if !c.Seen {
			missing = append(missing, fmt.Sprintf("cluster %q was not looked at yet", c.Name))
		}
	}
	if len(missing) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(missing, "\n"))
		return
	}
	fmt.Fprintln(w, "ready")
}

// isPrimary is the check of /primary.
func isPrimary(_ *http.Request, c Cluster) (bool, error) { return c.writable(), nil }

// isReadOnly is the check of /read-only.
func isReadOnly(_ *http.Request, c Cluster) (bool, error) { return c.readable(), nil }

// isReplica is the check of /replica.
func isReplica(r *http.Request, c Cluster) (bool, error) {
	lag := r.URL.Query().Get("lag")
	if lag == "" {
		return c.replica(-1), nil
	}
	bytes, err := parseLag(lag)
	if err != nil {
		return false, err
	}
	return c.replica(bytes), nil
}

// parseLag reads a number of bytes, with or without one of PostgreSQL's units.
func parseLag(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTB ")
	factor, ok := map[string]int64{
		"": 1, "B": 1, "kB": 1 << 10, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
	}[strings.TrimSpace(s[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || !ok || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("lag=%s: is no size; for example lag=16MB", s)
	}
	return n * factor, nil
}

// balancer answers 200 when check holds for every cluster that is asked about, 503 when it does
// not, with the clusters as /cluster shows them.
func (s *Server) balancer(check func(*http.Request, Cluster) (bool, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		clusters, ok := s.asked(w, r)
		if !ok {
			return
		}
		status := http.StatusOK
		for _, c := range clusters {
			switch good, err := check(r, c); {
			case err != nil:
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			case !good:
				status = http.StatusServiceUnavailable
			}
		}
		writeJSON(w, status, patroni(clusters))
	}
}

// cluster answers with the nodes as JSON.
func (s *Server) cluster(w http.ResponseWriter, r *http.Request) {
	if clusters, ok := s.asked(w, r); ok {
		writeJSON(w, http.StatusOK, patroni(clusters))
	}
}

// asked are the clusters that a request is about. It has answered when ok is false.
func (s *Server) asked(w http.ResponseWriter, r *http.Request) (clusters []Cluster, ok bool) {
	all := s.cfg.Source.Clusters()
	name := r.URL.Query().Get("cluster")
	if name == "" {
		return all, true
	}
	for _, c := range all {
		if c.Name == name {
			return []Cluster{c}, true
		}
	}
	http.Error(w, fmt.Sprintf("there is no cluster %q", name), http.StatusNotFound)
	return nil, false
}

// scope is one cluster in Patroni's shape, with what Patroni does not know behind it.
type scope struct {
	Scope       string   `json:"scope"`
	Members     []member `json:"members"`
	Primary     string   `json:"primary,omitempty"`
	Why         string   `json:"why,omitempty"`
	SplitBrain  bool     `json:"split_brain"`
	Unconfirmed bool     `json:"primary_unconfirmed"`
	Held        int      `json:"statements_held"`
	Epoch       uint64   `json:"epoch"`
	System      string   `json:"system_identifier,omitempty"` // text: it does not fit into a JavaScript number
}

// member is one node in Patroni's shape.
type member struct {
	Name     string            `json:"name"`
	Role     string            `json:"role"`
	State    string            `json:"state"`
	Host     string            `json:"host"`
	Port     int               `json:"port"`
	Timeline uint32            `json:"timeline,omitempty"`
	Lag      any               `json:"lag,omitempty"` // bytes, or "unknown"; standbys only
	Tags     map[string]string `json:"tags,omitempty"`
	Detail   string            `json:"detail,omitempty"`
}

// patroni is one scope for one cluster, a list of them for several.
func patroni(clusters []Cluster) any {
	scopes := make([]scope, len(clusters))
	for i, c := range clusters {
		sc := scope{
			Scope: c.Name, Members: make([]member, len(c.Nodes)), Primary: c.Primary, Why: c.Why,
			SplitBrain: c.SplitBrain, Unconfirmed: c.Unconfirmed, Held: c.Held, Epoch: c.Epoch,
		}
		if c.System != 0 {
			sc.System = strconv.FormatUint(c.System, 10)
		}
		for j, n := range c.Nodes {
			sc.Members[j] = memberOf(n)
		}
		scopes[i] = sc
	}
	if len(scopes) == 1 {
		return scopes[0]
	}
	return map[string]any{"clusters": scopes}
}

// memberOf is a node in Patroni's words: leader and replica, running and streaming; where they
// do not apply, in ours.
func memberOf(n Node) member {
	m := member{
		Name: n.Name, Role: n.Role, State: n.State, Host: n.Host, Port: n.Port,
		Timeline: n.Timeline, Detail: n.Detail, Tags: map[string]string{},
	}
	switch n.Role {
	case "primary":
		m.Role = "leader"
		if n.State == "up" {
			m.State = "running"
		}
	case "standby":
		m.Role = "replica"
		if n.State == "up" {
			m.State = "streaming"
		}
		m.Lag = any("unknown")
		if n.LagBytes >= 0 {
			m.Lag = n.LagBytes
		}
	}
	if n.Zone != "" {
		m.Tags["zone"] = n.Zone
	}
	for _, t := range n.Tags {
		m.Tags[t] = "true"
	}
	return m
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // a client that is gone needs no answer
}
