package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParsePgbench(t *testing.T) {
	const good = `transaction type: <builtin: select only>
number of transactions actually processed: 25612
number of failed transactions: 0 (0.000%)
latency average = 0.234 ms
initial connection time = 12.102 ms
tps = 4271.5 (without initial connection time)
`
	w, err := parsePgbench(good)
	if err != nil || w != (work{25612, 4271.5, 234 * time.Microsecond}) {
		t.Errorf("%+v, %v", w, err)
	}
	for _, bad := range []string{"", strings.Replace(good, "transactions: 0", "transactions: 3", 1), strings.Replace(good, "processed: 25612", "processed: 0", 1)} {
		if w, err := parsePgbench(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, w)
		}
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 50 20 10 20 0 1 0 9 1 2"))
	want := stat{parent: 7, used: procTime{user: 1200 * time.Millisecond, system: 600 * time.Millisecond}}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := parseStat([]byte("42 (a) S 7")); err == nil {
		t.Error("a short line passes")
	}
	n, err := parseRollup([]byte("55 [rollup]\nRss:      1234 kB\nPss:    1 kB\n"))
	if err != nil || n != 1234<<10 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestUsageSeesChildren lets a shell's child use the processor, living and ended.
func TestUsageSeesChildren(t *testing.T) {
	const burn = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; `
	cmd := exec.Command("/bin/sh", "-c", `sh -c '`+burn+`'; sh -c '`+burn+`echo ready; read -r x' ; true`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	all, err := family(cmd.Process.Pid)
	if err != nil {
		t.Skip(err)
	}
	sum, err := usage(cmd.Process.Pid)
	if err != nil || len(all) != 2 || sum.total() < 20*time.Millisecond {
		t.Errorf("%d processes used %v: %v", len(all), sum, err)
	}
	if n, err := resident(cmd.Process.Pid); err != nil || n < 100<<10 {
		t.Errorf("%d bytes resident: %v", n, err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestParseBenchmarks(t *testing.T) {
	got, err := parseBenchmarks(`goos: linux
BenchmarkClassifyKnown/pgbench/text-2         	 4476788	       115.1 ns/op	       0 B/op	       0 allocs/op
BenchmarkClassifyKnown/orm/shape              	   10000	     24122 ns/op	     732 B/op	       2 allocs/op
BenchmarkClassifyKnown/pgbench/text-2         	 4476788	        95.5 ns/op	       0 B/op	       0 allocs/op
PASS
`)
	if err != nil || len(got) != 2 || got[0].name != "pgbench/text" || got[0].best() != 95.5 || got[0].allocs != 0 || got[1].allocs != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseBenchmarks("PASS"); err == nil {
		t.Error("no figures are taken for some")
	}
}

func TestCounts(t *testing.T) {
	before, err := parseRouted("")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRouted(`# TYPE pgweir_statements_total counter
pgweir_statements_total{class="read",cluster="main",node="pg1"} 1.5e+03
pgweir_statements_total{class="write",cluster="main",node="pg1"} 500
pgweir_statements_total{class="read",cluster="main",node="pg0"} 2000
pgweir_statements_total{class="read",cluster="main",node="pg2"} 0
`)
	if err != nil {
		t.Fatal(err)
	}
	d := got.since(before)
	if !maps.Equal(d, counts{"pg0": 2000, "pg1": 2000}) || d.standbys() != 0.5 || (counts{}).standbys() != 0 {
		t.Errorf("%v, share %v", d, d.standbys())
	}
}

func TestRowReader(t *testing.T) {
	text, err := io.ReadAll(io.LimitReader(&rowReader{left: 700}, 1<<20))
	if err != nil || string(text) != strings.Repeat(copyRow, 700) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestHasPrepared(t *testing.T) {
	for v, want := range map[string]bool{"1.18.0": false, "1.20.1": false, "1.21.0": true, "1.25": true, "2.0": true, "x": false} {
		if hasPrepared(v) != want {
			t.Errorf("%s: %v", v, !want)
		}
	}
}

// fakeReport has pgweir at a ratio of 1.2 in each of its two rows.
func fakeReport() *report {
	rep := &report{
		rig:    &rig{proxies: []*candidate{{kind: pgbouncer}, {kind: pgbouncer, session: true}, {kind: weir}}},
		memory: map[kind]float64{pgbouncer: 512, weir: 7 << 10}, idleCPU: map[kind]float64{weir: 1},
		classify: []verdict{{name: "pgbench/text", nanos: []float64{400, 200, 900}}, {name: "orm/text", nanos: []float64{400}}},
	}
	for _, w := range workloads() {
		if w.full {
			continue
		}
		s := func(ms time.Duration) []sample {
			var out []sample
			for i, more := range []time.Duration{2, 0, 1} {
				out = append(out, sample{round: i, work: work{pieces: 1000}, used: procTime{user: (ms + more) * time.Millisecond}})
			}
			return out
		}
		theirs, ours := s(20), s(24)
		ours[0].used.system = 400 * time.Microsecond
		ours[2].used.system = 200 * time.Microsecond
		rep.rows = append(rep.rows, &row{workload: w, standbys: 1, samples: map[kind][]sample{pgbouncer: theirs, weir: ours}})
	}
	return rep
}

func TestReport(t *testing.T) {
	rep := fakeReport()
	table := rep.table()
	want := []string{"-S simple, 8 clients, µs/transaction", "21.0 (20.0–22.0)", "25.2 (24.0–26.4)", "1.20 (1.20–1.20)"}
	if got := strings.Join(table[2], "|"); got != strings.Join(want, "|") {
		t.Errorf("%s", got)
	}
	rep.rows[1].samples[weir] = nil
	if got := strings.Join(rep.table()[2][2:], "|"); got != "–|–" {
		t.Errorf("a candidate that took no part: %s", got)
	}
}

func TestCheck(t *testing.T) {
	if err := fakeReport().check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*report){
		"processor time": func(r *report) {
			for i := range r.rows[1].samples[weir] {
				r.rows[1].samples[weir][i].pieces = 900
			}
		},
		"standbys":  func(r *report) { r.rows[0].standbys = 0.4 },
		"memory":    func(r *report) { r.memory[weir] = boundMemory },
		"takes 300": func(r *report) { r.classify[0].nanos = []float64{400, 300} },
		"allocates": func(r *report) { r.classify[1].allocs = 1 },
	} {
		rep := fakeReport()
		spoil(rep)
		if err := rep.check(); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"x"}, {"-rounds", "0"}, {"-only", "("}, {"-check", "-only", "a"}, {"-check", "-idle", "0"}, {"-nothing"}} {
		if _, err := parse(bad, io.Discard); err == nil {
			t.Errorf("%v passes", bad)
		}
	}
	o, err := parse([]string{"-quick", "-check"}, io.Discard)
	if err != nil || o.seconds != 3 || o.rounds != 3 || o.out != "" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestChild starts a program that leaves a process behind, and stops both.
func TestChild(t *testing.T) {
	dir := t.TempDir()
	p, err := startChild(command{path: "/bin/sh", args: []string{"-c", "trap 'exit 0' TERM; sleep 600 & echo $!; wait"}, dir: dir, ask: []syscall.Signal{syscall.SIGTERM}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.await(t.Context(), func(context.Context) error {
		if text, err := os.ReadFile(p.log); err != nil || !bytes.HasSuffix(text, []byte("\n")) {
			return os.ErrNotExist
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	left := p.logs()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	for text := []byte("(sleep) S"); bytes.Contains(text, []byte("(sleep)")) && !bytes.Contains(text, []byte(") Z")); {
		if text, err = os.ReadFile("/proc/" + left + "/stat"); err != nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("process %s is left: %s", left, text)
		}
	}
}
