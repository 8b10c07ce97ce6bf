package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Version is the version of this source; the build adds the commit.
const Version = "0.1.0"

// Build is what the toolchain knows of this binary.
type Build struct {
	Version  string
	Revision string // commit, "unknown" outside of a repository
	Modified bool   // built from files that were not committed
	Go       string
}

// buildInfo reads what the toolchain left in the binary.
func buildInfo() Build {
	b := Build{Version: Version, Revision: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	return b
}

// String is the build on one line.
func (b Build) String() string {
	modified := ""
	if b.Modified {
		modified = ", modified"
	}
	return fmt.Sprintf("pgweir %s (commit %.12s%s, %s %s/%s)", b.Version, b.Revision, modified, b.Go, runtime.GOOS, runtime.GOARCH)
}

// runVersion prints version and build.
func runVersion(_ context.Context, args []string, _ io.Reader, stdout, _ io.Writer) error {
	if err := parseFlags(newFlagSet("version", ""), args, 0, stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintln(stdout, buildInfo())
	return err
}
