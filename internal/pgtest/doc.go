// Package pgtest answers, for tests only: what exactly went over the wire, and what happens if
// the other side does this?
//
//	RawClient   a client that sends any bytes at any moment and shows every message it gets
//	FakeNode    a PostgreSQL server that follows a script, well-behaved or hostile
//	FaultyConn  a connection that cuts, stalls and splits
//	Pipe        two connected ends in memory, with a buffer of a given size each way
//
// # Independence
//
// A test of pgweir must not read pgweir's answers with pgweir's own codec: an error in it would
// be in both and cancel out. So this package does not import internal/pgwire but has a small
// codec of its own, written for clarity and not for speed.
//
// The second opinion is pgproto3/v2. It is archived with an unfixed panic, so it may be imported by _test.go
// files only, and this package is none. Therefore a RawClient takes a Check function that sees
// every message it receives, and the _test.go files of a package that wants the second opinion
// hand in one built on pgproto3/v2; this package's own tests show how (TestCheck).
//
// # Comparing
//
// Describe prints a message of a node in a form that is the same whenever a client could not
// tell two messages apart: every field, in order, with pids, secrets and the place in
// PostgreSQL's source code masked. Parity tests compare lists of such lines.
//
// Waits are bounded by deadlines, never by sleeping; everything started here ends with the test
// that started it.
package pgtest
