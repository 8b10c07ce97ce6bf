package health

import "time"

// DefaultTrustWindow is how old evidence about a node may be when nothing else is configured.
const DefaultTrustWindow = 500 * time.Millisecond

// started is the zero of Clock. It is fixed when the process starts and never written again.
var started = time.Now()

// Clock is the time since the process started in nanoseconds, by the monotonic clock; it is never
// zero or negative, goes on while the process is stopped, and is not comparable between processes.
func Clock() int64 { return int64(time.Since(started)) + 1 }
