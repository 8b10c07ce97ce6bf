package proxy

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"pgweir/internal/pgtest"
)

// gucPG is the settings of a backend that a node reports: a change goes with its transaction, and is told in front of
// ReadyForQuery, as PostgreSQL does since version 14.
type gucPG struct {
	mu                      sync.Mutex
	now, told, reset, saved map[string]string // by their reported names
}

// newGUC is the settings with which a backend starts.
func newGUC(status [][2]string) *gucPG {
	reset := make(map[string]string)
	for _, s := range status {
		reset[s[0]] = s[1]
	}
	return &gucPG{now: maps.Clone(reset), told: maps.Clone(reset), reset: reset, saved: maps.Clone(reset)}
}

// set carries out a SET or RESET.
func (g *gucPG) set(sql string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	rest := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(sql, "SET "), "SESSION "), "LOCAL ")
	name, value, ok := strings.Cut(rest, " TO ")
	if !ok {
		name, value, _ = strings.Cut(rest, " = ")
	}
	if only, is := strings.CutPrefix(sql, "RESET "); is {
		name, value = only, "DEFAULT"
	}
	for known := range g.reset {
		switch {
		case name != "ALL" && !strings.EqualFold(known, strings.Trim(name, `"`)):
		case value == "DEFAULT":
			g.now[known] = g.reset[known]
		default:
			g.now[known] = strings.ReplaceAll(strings.Trim(value, "'"), "''", "'")
		}
	}
}

// get is the value in force.
func (g *gucPG) get(name string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now[name]
}

// put makes a value the one in force.
func (g *gucPG) put(name, value string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[name] = value
}

// ends is the end of a transaction, which takes its changes along if it failed.
func (g *gucPG) ends(committed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if committed {
		g.saved = maps.Clone(g.now)
	} else {
		g.now = maps.Clone(g.saved)
	}
}

// report is what the client has not been told.
func (g *gucPG) report() []pgtest.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []pgtest.Message
	names := slices.SortedFunc(maps.Keys(g.now), func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	for _, name := range names {
		if g.now[name] != g.told[name] {
			g.told[name] = g.now[name]
			out = append(out, pgtest.ParameterStatus(name, g.now[name]))
		}
	}
	return out
}
