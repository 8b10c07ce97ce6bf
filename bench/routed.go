package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"pgweir/internal/localpg"
)

// counts are statements by the name of the node that answered them.
type counts map[string]int

// since is what was added after before; nodes without anything are left out.
func (c counts) since(before counts) counts {
	out := make(counts)
	for node, n := range c {
		if d := n - before[node]; d != 0 {
			out[node] = d
		}
	}
	return out
}

// standbys is the share of all nodes but the first, which is the primary.
func (c counts) standbys() float64 {
	all, primary := 0, 0
	for node, n := range c {
		all += n
		if node == "pg0" {
			primary = n
		}
	}
	return float64(all-primary) / float64(max(all, 1))
}

// routedLine is a line of pgweir's metrics.
var routedLine = regexp.MustCompile(`(?m)^pgweir_statements_total\{[^}]*\bnode="([^"]+)"[^}]*\} ([0-9.e+]+)$`)

// routed asks a pgweir how many statements each node has answered so far; nil for other candidates.
func (r *rig) routed(ctx context.Context, c *candidate) (counts, error) {
	if c.admin == 0 {
		return nil, nil
	}
	text, err := scrape(ctx, c.admin)
	if err != nil {
		return nil, err
	}
	return parseRouted(text)
}

// scrape reads the metrics at a port.
func scrape(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", port), http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("read pgweir's metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return "", fmt.Errorf("read pgweir's metrics: %w", err)
	}
	return string(text), nil
}

// procsLine is the line of pgweir's metrics that says with which GOMAXPROCS it runs.
var procsLine = regexp.MustCompile(`(?m)^go_sched_gomaxprocs_threads (\d+)$`)

// askProcs puts the GOMAXPROCS of a pgweir behind its version; other candidates are left as they are.
func (r *rig) askProcs(ctx context.Context, c *candidate) error {
	if c.admin == 0 {
		return nil
	}
	text, err := scrape(ctx, c.admin)
	if err != nil {
		return err
	}
	m := procsLine.FindStringSubmatch(text)
	if m == nil {
		return errors.New("read pgweir's metrics: there is no go_sched_gomaxprocs_threads")
	}
	c.version += ", GOMAXPROCS=" + m[1]
	return nil
}

// parseRouted sums the classes up.
func parseRouted(text string) (counts, error) {
	out := make(counts)
	for _, m := range routedLine.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("read pgweir's metrics: %w", err)
		}
		out[m[1]] += int(n)
	}
	return out, nil
}

// verify asks the nodes through a pgweir who they are, and compares that with the pgweir's counters,
// which the shares in the table are made of. Other candidates pass.
func (r *rig) verify(ctx context.Context, c *candidate) error {
	before, err := r.routed(ctx, c)
	if err != nil || before == nil {
		return err
	}
	said := make(counts)
	for range 6 {
		if err := r.whoAnswers(ctx, c.port, 10, said); err != nil {
			return fmt.Errorf("ask the nodes who answers: %w", err)
		}
	}
	after, err := r.routed(ctx, c)
	if err != nil {
		return err
	}
	if counted := after.since(before); !maps.Equal(said, counted) {
		return fmt.Errorf("the nodes say that they answered %v, pgweir counted %v", said, counted)
	}
	return nil
}

// whoAnswers asks n times over one connection and adds the nodes' names to said.
func (r *rig) whoAnswers(ctx context.Context, port, n int, said counts) (err error) {
	conn, err := r.connect(ctx, port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for range n {
		results, err := conn.Exec(ctx, "SELECT node_port()").ReadAll()
		if err != nil {
			return err
		}
		port, err := strconv.Atoi(string(results[0].Rows[0][0]))
		if err != nil {
			return err
		}
		said[nodeName(r.cluster, port)]++
	}
	return nil
}

// nodeName is the name of the node with a port.
func nodeName(c *localpg.Cluster, port int) string {
	if n := c.ByPort(port); n != nil {
		return n.Name
	}
	return "port " + strconv.Itoa(port)
}
