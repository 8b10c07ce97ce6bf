package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// verdict is what the benchmark of the classifier says of one kind of statement.
type verdict struct {
	name   string
	nanos  []float64 // of each run
	allocs int       // the most of any run
}

// best is the run that was disturbed least.
func (v verdict) best() float64 { lo, _ := bounds(v.nanos); return lo }

// classify runs the benchmark of package router.
func (r *rig) classify(ctx context.Context) ([]verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkClassifyKnown$", "-benchmem", "-benchtime", "200ms", "-count", "5", "./router")
	cmd.Dir = r.module
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run the classifier's benchmark: %w: %s", err, bytes.TrimSpace(out))
	}
	return parseBenchmarks(string(out))
}

// benchLine is one line of `go test -bench -benchmem`.
var benchLine = regexp.MustCompile(`(?m)^BenchmarkClassifyKnown/(\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op$`)

// parseBenchmarks collects the runs of each benchmark, in the order of their first line.
func parseBenchmarks(out string) ([]verdict, error) {
	var all []verdict
	for _, m := range benchLine.FindAllStringSubmatch(strings.ReplaceAll(out, "\r", ""), -1) {
		ns, err1 := strconv.ParseFloat(m[2], 64)
		allocs, err2 := strconv.Atoi(m[3])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read %q: %w", m[0], err)
		}
		i := 0
		for i < len(all) && all[i].name != m[1] {
			i++
		}
		if i == len(all) {
			all = append(all, verdict{name: m[1]})
		}
		all[i].nanos = append(all[i].nanos, ns)
		all[i].allocs = max(all[i].allocs, allocs)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the classifier's benchmark printed no figures:\n%s", out)
	}
	return all, nil
}
