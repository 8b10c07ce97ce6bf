package health

import "time"

// DefaultTrustWindow is how old evidence about a node may be when nothing else is configured.
const DefaultTrustWindow = 500 * time.Millisecond

// started is a fixed point of the monotonic clock, never written again.
var started = time.Now()

// clockBase keeps Clock above zero also where time runs from another origin, as in the bubbles of
// testing/synctest, which begin in the year 2000.
const clockBase = int64(1) << 61

// Clock is the monotonic clock in nanoseconds. Only differences mean anything, and only within the
// process; it is always above zero, and goes on while the process is stopped.
func Clock() int64 { return clockBase + int64(time.Since(started)) }
