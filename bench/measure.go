package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// sample is one run of one workload against one candidate.
type sample struct {
	round int
	work
	used procTime // by the proxy's processes
	load procTime // by this one, where it is the load
}

// cost is the processor time for a piece of work, in the workload's unit.
func (s sample) cost(w workload) float64 {
	return s.used.total().Seconds() / s.pieces * w.scale
}

// row is what was measured of one workload.
type row struct {
	workload
	samples  map[kind][]sample
	session  bool    // PgBouncer ran in session mode
	standbys float64 // share of pgweir's statements that standbys answered in the last round
}

// measure runs everything. Candidates take their turns within each round of each row.
func (r *rig) measure(ctx context.Context) (*report, error) {
	rep := &report{rig: r, options: r.options, idleCPU: make(map[kind]float64), memory: make(map[kind]float64)}
	for _, w := range workloads() {
		if w.full && r.quick || r.only != nil && !r.only.MatchString(w.name) {
			continue
		}
		rep.rows = append(rep.rows, &row{workload: w, samples: make(map[kind][]sample)})
	}
	classifier := r.only == nil || r.only.MatchString(classifierRow)
	crowd := r.only == nil && !r.quick || r.only != nil && r.only.MatchString(crowdRow)
	if len(rep.rows) == 0 && r.idle == 0 && !classifier && !crowd {
		return nil, errors.New("-only: no row has such a name")
	}
	if r.idle > 0 {
		if err := r.measureMemory(ctx, rep); err != nil {
			return nil, err
		}
	}
	if err := r.warm(ctx); err != nil {
		return nil, err
	}
	if crowd {
		if err := r.measureCrowd(ctx, rep); err != nil {
			return nil, err
		}
	}
	for round := range r.rounds {
		for _, row := range rep.rows {
			if err := r.measureRow(ctx, row, round); err != nil {
				return nil, fmt.Errorf("%s: %w", row.name, err)
			}
		}
	}
	if err := r.measureIdle(ctx, rep); err != nil {
		return nil, err
	}
	if classifier {
		r.say("classifier")
		var err error
		if rep.classify, err = r.classify(ctx); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

// warm lets every candidate open its connections, learn the statements and grow its heap.
func (r *rig) warm(ctx context.Context) error {
	for _, c := range r.proxies {
		mode := "simple"
		if c.session {
			mode = "prepared"
		}
		if _, err := r.pgbench(ctx, c.port, "-n", "-S", "-M", mode, "-c", "8", "-T", "1"); err != nil {
			return fmt.Errorf("warm %s up: %w", c.version, err)
		}
		if err := r.verify(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.version, err)
		}
	}
	return nil
}

// measureRow runs one round of a workload against every candidate that takes part.
func (r *rig) measureRow(ctx context.Context, row *row, round int) error {
	turn := slices.Clone(r.proxies)
	for range round % len(turn) {
		turn = append(turn[1:], turn[0])
	}
	for _, c := range turn {
		if slices.Contains(row.not, c.kind) || c.kind == pgbouncer && c.session != r.wantSession(row.workload) {
			continue
		}
		row.session = row.session || c.session
		routed, err := r.routed(ctx, c)
		if err != nil {
			return err
		}
		before, err := usage(c.child.pid())
		if err != nil {
			return err
		}
		w, err := row.drive(ctx, r, c.port)
		if err != nil {
			return fmt.Errorf("%s: %w", c.version, err)
		}
		after, err := usage(c.child.pid())
		if err != nil {
			return err
		}
		s := sample{round: round, work: w, used: after.since(before)}
		row.samples[c.kind] = append(row.samples[c.kind], s)
		r.say("round %d  %-32s %-20s %7.2f %s  %9.1f/s", round+1, row.name, c.kind, s.cost(row.workload), row.unit, s.rate)
		if c.kind == weir {
			now, err := r.routed(ctx, c)
			if err != nil {
				return err
			}
			row.standbys = now.since(routed).standbys()
		}
	}
	return nil
}

// wantSession says whether PgBouncer has to be in session mode for a workload.
func (r *rig) wantSession(w workload) bool {
	return w.prepared && slices.ContainsFunc(r.proxies, func(c *candidate) bool { return c.session })
}

// measureIdle takes what each candidate uses when nobody asks anything of it.
func (r *rig) measureIdle(ctx context.Context, rep *report) error {
	const span = 3 * time.Second
	before := make(map[*candidate]procTime)
	began := time.Now()
	var err error
	for _, c := range r.proxies {
		if before[c], err = usage(c.child.pid()); err != nil {
			return err
		}
	}
	if err := pause(ctx, span); err != nil {
		return err
	}
	for _, c := range r.proxies {
		after, err := usage(c.child.pid())
		if err != nil {
			return err
		}
		if !c.session {
			rep.idleCPU[c.kind] = 1000 * after.since(before[c]).total().Seconds() / time.Since(began).Seconds()
		}
	}
	return nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// The rows that are not runs of pgbench, as -only names them.
const (
	memoryRow     = "memory"
	classifierRow = "classifier"
	crowdRow      = "crowd"
)

// measureMemory takes the memory of an idle client, of fresh processes one after the other.
// Pgpool-II is left out: it has a process for each client from the start.
func (r *rig) measureMemory(ctx context.Context, rep *report) error {
	for _, k := range []kind{pgbouncer, haproxy, weir} {
		if k == haproxy && r.quick || !slices.ContainsFunc(r.proxies, func(c *candidate) bool { return c.kind == k }) {
			continue
		}
		err := r.fresh(ctx, k, func(c *candidate) (err error) {
			rep.memory[k], err = r.memoryOf(ctx, c)
			return err
		})
		if err != nil {
			return fmt.Errorf("memory of %s: %w", k, err)
		}
		r.say("memory of an idle client  %-20s %6.2f KiB", k, rep.memory[k]/1024)
	}
	return nil
}

// fresh calls do with a process of a candidate that nothing else has used.
func (r *rig) fresh(ctx context.Context, k kind, do func(*candidate) error) error {
	plans, err := r.plans(ctx, k)
	if err != nil {
		return err
	}
	c, err := r.launch(ctx, plans[0])
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.stop())
}

// settle is how long a process has before its memory is read.
const settle = 3 * time.Second

// memoryOf is the memory that one idle client takes, in bytes.
func (r *rig) memoryOf(ctx context.Context, c *candidate) (float64, error) {
	// The first clients make the process grow to the size at which it works.
	if err := r.withIdle(ctx, c.port, 20, func() error { return nil }); err != nil {
		return 0, err
	}
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	before, err := resident(c.child.pid())
	if err != nil {
		return 0, err
	}
	var after int64
	err = r.withIdle(ctx, c.port, r.idle, func() error {
		if err := pause(ctx, settle); err != nil {
			return err
		}
		after, err = resident(c.child.pid())
		return err
	})
	return float64(after-before) / float64(r.idle), err
}

// withIdle calls do while n clients, which have run one query each, are connected to a port.
func (r *rig) withIdle(ctx context.Context, port, n int, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	conns := make([]*pgconn.PgConn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if conns[i], errs[i] = r.connect(ctx, port); errs[i] == nil {
					_, errs[i] = conns[i].Exec(ctx, oneRead).ReadAll()
				}
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			errs[i] = context.Cause(ctx)
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Conn().Close() // a farewell from each would take long
			}
		}
	}()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return fmt.Errorf("client %d of %d: %w", i+1, n, errs[i])
	}
	return do()
}
