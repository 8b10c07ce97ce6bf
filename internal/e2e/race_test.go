//go:build race

package e2e

// raceEnabled says that the tests run with the race detector; the program is built with it then.
const raceEnabled = true
