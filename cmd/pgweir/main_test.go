package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// commandLine runs the program and returns its exit status and what it printed.
func commandLine(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, complaint strings.Builder
	err := run(t.Context(), args, strings.NewReader(""), &out, &complaint)
	status = exitStatus(err, &complaint)
	return status, out.String(), complaint.String()
}

// TestCommandLine holds the exit status and the words of the ways to be misunderstood.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		stdout string
		stderr string
	}{
		{nil, 2, "", "Usage: pgweir COMMAND"},
		{[]string{"help"}, 0, "setup-sql", ""},
		{[]string{"-h"}, 0, "Usage: pgweir COMMAND", ""},
		{[]string{"version"}, 0, "pgweir " + Version, ""},
		{[]string{"--version"}, 0, "pgweir " + Version, ""},
		{[]string{"version", "x"}, 2, "", `unexpected argument "x"`},
		{[]string{"chekc"}, 2, "", `unknown command "chekc"; did you mean "check"?`},
		{[]string{"check", "-h"}, 0, "-hold-timeout", ""},
		{[]string{"check", "--hold-timout=3s"}, 2, "", "unknown flag --hold-timout; did you mean --hold-timeout?"},
		{[]string{"config"}, 2, "", "config print"},
		{[]string{"config", "print", "--pool-size=0"}, 1, "", "2 problems in the configuration; nothing was started"},
		{[]string{"setup-sql", "--user", "pg_x"}, 2, "", "names that start with pg_"},
		{[]string{"setup-sql", "--user", "Mon"}, 0, `GRANT pg_monitor TO "Mon";`, ""},
		{[]string{"setup-sql", "--promote"}, 0, "GRANT ALTER SYSTEM ON PARAMETER primary_conninfo", ""},
	} {
		status, stdout, stderr := commandLine(t, c.args...)
		if status != c.status || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q: status %d, want %d\nstdout %s\nstderr %s", c.args, status, c.status, stdout, stderr)
		}
	}
}

// TestConfigPrint holds both forms of it, with sources and without secrets.
func TestConfigPrint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgweir.yaml")
	if err := os.WriteFile(file, []byte("nodes: [pg-a]\nmonitor: {password: hunter2}\nhold:\n  timeout: 7s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGWEIR_POOL_SIZE", "9")
	t.Setenv("PGWEIR_CONFIG", file)
	status, text, complaint := commandLine(t, "config", "print", "--route=shadow")
	if status != 0 || !strings.Contains(complaint, "warning: state_dir") {
		t.Fatalf("status %d: %s", status, complaint)
	}
	lines := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		fields := strings.Fields(l)
		lines[fields[0]] = strings.Join(fields[1:], " ")
	}
	for path, want := range map[string]string{
		"hold.timeout": "7s " + file + ":4", "hold.max": "10000 default", "pool_size": "9 env PGWEIR_POOL_SIZE",
		"route": "shadow flag --route", "monitor.password": "*** " + file + ":2", "clusters.main.monitor.password": "*** " + file + ":2",
		"tls.cert": `"" default`, "databases.*.cluster": "main default",
	} {
		if lines[path] != want {
			t.Errorf("%s: %q, want %q", path, lines[path], want)
		}
	}
	_, asJSON, _ := commandLine(t, "config", "print", "--json")
	if strings.Contains(text+asJSON, "hunter2") || !strings.Contains(asJSON, `"source": "env PGWEIR_POOL_SIZE"`) {
		t.Errorf("got %s", asJSON)
	}
}

// TestExitStatus holds that an error is printed once and with the program's name.
func TestExitStatus(t *testing.T) {
	var out strings.Builder
	if got := exitStatus(io.ErrUnexpectedEOF, &out); got != 1 || out.String() != "pgweir: unexpected EOF\n" {
		t.Errorf("status %d, %q", got, out.String())
	}
	out.Reset()
	if got := exitStatus(&statusError{2}, &out); got != 2 || out.String() != "" {
		t.Errorf("status %d, %q", got, out.String())
	}
}
