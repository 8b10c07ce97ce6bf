package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// workload is one row of the table.
type workload struct {
	name     string
	unit     string  // of a cell
	scale    float64 // from seconds for one piece of work to the unit
	full     bool    // only in the full run
	prepared bool    // needs prepared statements that outlive a transaction
	reads    bool    // made of reads outside of transactions: standbys should answer
	not      []kind  // candidates that do not take part
	drive    func(ctx context.Context, r *rig, port int) (work, error)
}

// work is what a load got done.
type work struct {
	pieces  float64 // transactions, queries of a pipeline, or gigabytes
	rate    float64 // pieces a second, without the logins
	latency time.Duration
}

// workloads are the rows, in the order of the table.
func workloads() []workload {
	const micro = "µs/transaction"
	return []workload{
		{name: "-S simple, 1 client", unit: micro, scale: 1e6, reads: true, drive: load(1, "-S", "-M", "simple")},
		{name: "-S simple, 8 clients", unit: micro, scale: 1e6, reads: true, drive: load(8, "-S", "-M", "simple")},
		{name: "-S simple, 64 clients", unit: micro, scale: 1e6, reads: true, full: true, drive: load(64, "-S", "-M", "simple")},
		{name: "-S extended, 8 clients", unit: micro, scale: 1e6, reads: true, full: true, drive: load(8, "-S", "-M", "extended")},
		{name: "-S prepared, 8 clients", unit: micro, scale: 1e6, reads: true, prepared: true, drive: load(8, "-S", "-M", "prepared")},
		{name: "pipelined, 20 deep, 8 clients", unit: "µs/query", scale: 1e6, reads: true, full: true, not: []kind{pgpool}, drive: pipeline},
		{name: "TPC-B simple, 8 clients", unit: micro, scale: 1e6, full: true, drive: load(8, "-M", "simple")},
		{name: "result stream", unit: "s/GB", scale: 1, full: true, drive: stream},
		{name: "COPY IN", unit: "s/GB", scale: 1, full: true, drive: copyIn},
		{name: "connect and one query, 4 clients", unit: micro, scale: 1e6, reads: true, full: true, drive: load(4, "-S", "-C", "-M", "simple")},
	}
}

// load is a workload of pgbench's own scripts.
func load(clients int, args ...string) func(context.Context, *rig, int) (work, error) {
	return func(ctx context.Context, r *rig, port int) (work, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(r.seconds)*time.Second+time.Minute)
		defer cancel()
		all := append([]string{"-n", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)), "-T", strconv.Itoa(r.seconds)}, args...)
		out, err := r.pgbench(ctx, port, all...)
		if err != nil {
			return work{}, err
		}
		return parsePgbench(out)
	}
}

// Lines of what pgbench prints at the end.
var (
	doneLine    = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine  = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	rateLine    = regexp.MustCompile(`(?m)^tps = ([0-9.]+) `)
	latencyLine = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
)

// parsePgbench reads pgbench's report. Failed transactions are an error.
func parsePgbench(out string) (work, error) {
	number := func(re *regexp.Regexp) float64 {
		m := re.FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0
		}
		return n
	}
	w := work{pieces: number(doneLine), rate: number(rateLine), latency: time.Duration(number(latencyLine) * float64(time.Millisecond))}
	if failed := number(failedLine); failed > 0 || w.pieces == 0 {
		return work{}, fmt.Errorf("pgbench did %.0f transactions and %.0f failed:\n%s", w.pieces, failed, out)
	}
	return w, nil
}

// depth is how many queries a pipeline holds.
const depth = 20

// pipeline sends queries in batches of depth.
func pipeline(ctx context.Context, r *rig, port int) (work, error) {
	script := `\startpipeline` + "\n"
	for range depth {
		script += "\\set aid random(1, 100000 * :scale)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
	}
	script += `\endpipeline` + "\n"
	file := filepath.Join(r.dir, "pipeline.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return work{}, err
	}
	w, err := load(8, "-M", "extended", "-s", strconv.Itoa(r.scale), "-f", file)(ctx, r, port)
	w.pieces *= depth
	w.rate *= depth
	return w, err
}

// bulk is how many bytes stream and copyIn move for each second that a run of pgbench takes.
const bulk = 40 << 20

// stream reads a large result: rows of a thousand bytes.
func stream(ctx context.Context, r *rig, port int) (w work, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	conn, err := r.connect(ctx, port)
	if err != nil {
		return work{}, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	began := time.Now()
	rows := bulk * r.seconds / 1000
	results := conn.Exec(ctx, fmt.Sprintf("SELECT repeat('x', 1000) FROM generate_series(1, %d)", rows))
	var bytes int
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
			bytes += len(reader.Values()[0])
		}
	}
	if err := results.Close(); err != nil {
		return work{}, fmt.Errorf("read a large result: %w", err)
	}
	if bytes != rows*1000 {
		return work{}, fmt.Errorf("read a large result: %d bytes came, not %d", bytes, rows*1000)
	}
	return moved(bytes, began), nil
}

// copyIn loads rows into a table that is not logged.
func copyIn(ctx context.Context, r *rig, port int) (w work, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := r.cluster.Nodes[0].Exec(ctx, benchDatabase, "TRUNCATE bench_copy"); err != nil {
		return work{}, err
	}
	conn, err := r.connect(ctx, port)
	if err != nil {
		return work{}, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows := &rowReader{left: bulk * r.seconds / len(copyRow)}
	want := rows.left
	began := time.Now()
	tag, err := conn.CopyFrom(ctx, rows, "COPY bench_copy FROM STDIN")
	if err != nil {
		return work{}, fmt.Errorf("copy rows in: %w", err)
	}
	if tag.RowsAffected() != int64(want) {
		return work{}, fmt.Errorf("copy rows in: %d arrived, not %d", tag.RowsAffected(), want)
	}
	return moved(want*len(copyRow), began), nil
}

// copyRow is what every row of copyIn looks like, 100 bytes.
const copyRow = "1234567\tAbalance of an account, with as much filler as pgbench gives to a row of its largest table...\n"

// rowReader gives out copyRow, left times.
type rowReader struct {
	left int
	rest string
}

// Read fills p with whole and cut rows.
func (r *rowReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if r.rest == "" {
			if r.left == 0 {
				break
			}
			r.left--
			r.rest = copyRow
		}
		m := copy(p[n:], r.rest)
		n, r.rest = n+m, r.rest[m:]
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// moved is the work of moving bytes since a moment.
func moved(bytes int, since time.Time) work {
	took := time.Since(since)
	gb := float64(bytes) / 1e9
	return work{pieces: gb, rate: gb / took.Seconds(), latency: took}
}
