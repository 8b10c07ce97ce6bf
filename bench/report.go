package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report is what one run found.
type report struct {
	options
	rig      *rig
	rows     []*row
	memory   map[kind]float64 // bytes for an idle client
	crowds   map[kind]*crowd
	idleCPU  map[kind]float64 // thousandths of a processor without any load
	classify []verdict
	took     time.Duration
}

// kinds are the candidates of the run, in the order of the columns.
func (rep *report) kinds() []kind {
	var out []kind
	for _, c := range rep.rig.proxies {
		if !slices.Contains(out, c.kind) {
			out = append(out, c.kind)
		}
	}
	return out
}

// median of values that are not empty.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// bounds are the smallest and the largest of values that are not empty.
func bounds(v []float64) (lo, hi float64) { return slices.Min(v), slices.Max(v) }

// spread is median and bounds, for people.
func spread(v []float64) string {
	lo, hi := bounds(v)
	return fmt.Sprintf("%s (%s–%s)", figure(median(v)), figure(lo), figure(hi))
}

// figure has three digits that matter.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// costs are a candidate's figures in a row, round by round.
func (r *row) costs(k kind) []float64 {
	var out []float64
	for _, s := range r.samples[k] {
		out = append(out, s.cost(r.workload))
	}
	return out
}

// ratios are a candidate's figures over PgBouncer's of the same round; nil where one has none.
func (r *row) ratios(k kind) []float64 {
	mine, theirs := r.costs(k), r.costs(pgbouncer)
	if len(mine) != len(theirs) {
		return nil
	}
	for i := range mine {
		mine[i] /= theirs[i]
	}
	return mine
}

// title is the row's name with what people must know to read it.
func (r *row) title() string {
	t := r.name
	if r.session {
		t += " (PgBouncer: session mode)"
	}
	return t + ", " + r.unit
}

// table is the main one: heads and rows of cells.
func (rep *report) table() [][]string {
	ks := rep.kinds()
	head := []string{"workload"}
	for _, k := range ks {
		head = append(head, string(k))
	}
	for _, k := range ks {
		if k != pgbouncer {
			head = append(head, string(k)+" ÷ PgBouncer")
		}
	}
	out := [][]string{head}
	for _, r := range rep.rows {
		line := []string{r.title()}
		var ratios []string
		for _, k := range ks {
			cell, quotient := "–", "–"
			if v := r.costs(k); v != nil {
				cell = spread(v)
			}
			if v := r.ratios(k); v != nil {
				quotient = ratio(v)
			}
			line = append(line, cell)
			if k != pgbouncer {
				ratios = append(ratios, quotient)
			}
		}
		out = append(out, append(line, ratios...))
	}
	return out
}

// ratio is how ratios are shown: the median of the rounds, and the smallest and largest.
func ratio(v []float64) string {
	lo, hi := bounds(v)
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(v), lo, hi)
}

// other are the figures that are not processor time for each piece of work.
func (rep *report) other() [][]string {
	out := [][]string{{"figure", "value"}}
	for _, k := range rep.kinds() {
		if v, ok := rep.memory[k]; ok {
			out = append(out, []string{fmt.Sprintf("memory of an idle client of %d, %s", rep.idle, k), fmt.Sprintf("%.2f KiB", v/1024)})
		}
	}
	for _, k := range rep.kinds() {
		if c := rep.crowds[k]; c != nil {
			out = append(out, []string{
				fmt.Sprintf("%d clients ÷ %d clients on %d connections, %s", crowdMany, crowdFew, crowdConnections, k),
				fmt.Sprintf("throughput %s, processor time a query %s; of the load itself %s", ratio(c.rates()), ratio(c.costs()), ratio(c.loads())),
			})
		}
	}
	for _, k := range rep.kinds() {
		if v, ok := rep.idleCPU[k]; ok {
			out = append(out, []string{fmt.Sprintf("without load, %s", k), fmt.Sprintf("%.1f ms of processor time a second", v)})
		}
	}
	for _, r := range rep.rows {
		if r.reads {
			out = append(out, []string{"answered by standbys through pgweir, " + r.name, fmt.Sprintf("%.0f %%", 100*r.standbys)})
		}
	}
	for _, v := range rep.classify {
		out = append(out, []string{"classify a known statement, " + v.name, fmt.Sprintf("%.0f ns (median %.0f), %d allocations", v.best(), median(v.nanos), v.allocs)})
	}
	return out
}

// raw are the single runs.
func (rep *report) raw() [][]string {
	out := [][]string{{"workload", "candidate", "round", "user", "system", "pieces", "pieces/s", "mean latency"}}
	for _, r := range rep.rows {
		for _, k := range rep.kinds() {
			for _, s := range r.samples[k] {
				out = append(out, []string{
					r.title(), string(k), fmt.Sprint(s.round + 1), figure(s.used.user.Seconds() / s.pieces * r.scale), figure(s.used.system.Seconds() / s.pieces * r.scale),
					figure(s.pieces), figure(s.rate), s.latency.Round(time.Microsecond).String(),
				})
			}
		}
	}
	return out
}

// facts say under which conditions the figures were found.
func (rep *report) facts() []string {
	var out []string
	for _, c := range rep.rig.proxies {
		out = append(out, c.version)
	}
	for _, m := range rep.rig.missing {
		out = append(out, m+" is not installed: left out")
	}
	threads := "pgbench with two threads (one for one client)"
	return append(out,
		fmt.Sprintf("PostgreSQL %d, a primary and two standbys on the same machine; %s", rep.rig.cluster.Bins().Version, threads),
		fmt.Sprintf("%s, %d processors, %s/%s", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH),
		fmt.Sprintf("%d rounds of %d s, pgbench scale %d; the whole took %s", rep.rounds, rep.seconds, rep.scale, rep.took.Round(time.Second)),
	)
}

// text is the report for a terminal.
func (rep *report) text() string {
	var b strings.Builder
	b.WriteString("\nProcessor time (user and system) of the proxy's processes: median (min–max) of the rounds.\n\n")
	for _, f := range rep.facts() {
		b.WriteString("  " + f + "\n")
	}
	for _, t := range [][][]string{rep.table(), rep.other()} {
		b.WriteString("\n" + align(t))
	}
	return b.String()
}

// align lays a table out in columns.
func align(table [][]string) string {
	width := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range table {
		text := ""
		for i, cell := range line {
			text += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

// markdown is the report as a page.
func (rep *report) markdown() string {
	var b strings.Builder
	b.WriteString("# What pgweir costs\n\nWritten by `go run ./bench -o bench/RESULTS.md`; how to read it stands in [doc.go](doc.go). Processor time (user and\nsystem) of the proxy's processes: median (min–max) of the rounds.\n\n")
	for _, f := range rep.facts() {
		b.WriteString("- " + f + "\n")
	}
	b.WriteString("- settings of the servers over those of `internal/localpg`: ")
	var set []string
	for k, v := range rep.rig.settings() {
		set = append(set, k+" = "+v)
	}
	slices.Sort(set)
	b.WriteString(strings.Join(set, ", ") + "\n")
	for _, part := range []struct {
		head  string
		table [][]string
	}{{"Ratios", rep.table()}, {"Other figures", rep.other()}, {"Raw figures", rep.raw()}} {
		b.WriteString("\n## " + part.head + "\n\n" + pipes(part.table))
	}
	return b.String()
}

// pipes lays a table out in Markdown.
func pipes(table [][]string) string {
	var b strings.Builder
	for i, line := range table {
		b.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(line)) + "|\n")
		}
	}
	return b.String()
}
