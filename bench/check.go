package main

import (
	"errors"
	"fmt"
	"strings"
)

// The bounds that -check holds pgweir to.
const (
	boundRow    = "-S simple, 8 clients"
	boundRatio  = 1.25 // of PgBouncer's processor time in boundRow, at most
	boundMemory = 8192 // bytes for an idle client, less than this
	boundNanos  = 300  // to classify one of pgbench's statements that is known, less than this
	boundReads  = 0.5  // share of the reads that standbys answered, at least: else the figures are of something else
)

// check returns an error for each bound that does not hold.
func (rep *report) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, r := range rep.rows {
		if r.name == boundRow {
			if v := median(r.ratios(weir)); v > boundRatio {
				bad("%s: pgweir takes %.2f times PgBouncer's processor time, more than %.2f", r.name, v, boundRatio)
			}
		}
		if r.reads && r.standbys < boundReads {
			bad("%s: standbys answered %.0f %% of the reads, less than %.0f %%", r.name, 100*r.standbys, 100*boundReads)
		}
	}
	if v := rep.memory[weir]; v >= boundMemory {
		bad("an idle client takes %.1f KiB of pgweir's memory, not less than %.0f", v/1024, boundMemory/1024.)
	}
	for _, v := range rep.classify {
		if strings.HasPrefix(v.name, "pgbench/") && v.best() >= boundNanos {
			bad("classifying a known statement (%s) takes %.0f ns, not less than %d", v.name, v.best(), boundNanos)
		}
		if v.allocs > 0 {
			bad("classifying a known statement (%s) allocates %d times", v.name, v.allocs)
		}
	}
	return errors.Join(errs...)
}
