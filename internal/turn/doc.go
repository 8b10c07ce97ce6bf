// Package turn answers the question: how does a goroutine that computes for long let those run first for whom bytes
// have arrived?
//
// Go's scheduler asks the network poller only when nothing else can run, and otherwise every ten milliseconds. With
// GOMAXPROCS=1 a goroutine that computes is always something else: runtime.Gosched puts it behind those that are known to be
// ready, and it runs on while the others' bytes wait in the kernel. So a Turn waits for the poller itself, at the end of the line.
package turn
