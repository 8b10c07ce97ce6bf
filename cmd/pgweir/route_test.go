package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// routed runs route on what stands on standard input.
func routed(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if err := run(t.Context(), append([]string{"route"}, args...), strings.NewReader(stdin), &out, &errOut); err != nil {
		t.Fatalf("route %q: %v, %s", args, err, errOut.String())
	}
	return out.String()
}

func TestRouteJSON(t *testing.T) {
	out := routed(t, "SELECT 'a;b'; INSERT INTO t VALUES (1);\nSET work_mem = 1; SELECT f(1) -- <x>\n", "--json")
	var got []routeLine
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var l routeLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, l)
	}
	want := []routeLine{
		{"SELECT 'a;b'", "read", "standby", "read"},
		{"INSERT INTO t VALUES (1)", "primary", "primary", "write"},
		{"SET work_mem = 1", "session", "primary", "session"},
		{"SELECT f(1) -- <x>", "primary", "primary", "unknown_name"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestRouteNUL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "statements")
	if err := os.WriteFile(file, []byte("SELECT 1; SELECT 2\x00\n\x00SELECT 1; DELETE\nFROM t\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "read     standby  read           SELECT 1; SELECT 2\nprimary  primary  write          SELECT 1; DELETE FROM t\n"
	if got := routed(t, "", "-0", file); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRouteErrors(t *testing.T) {
	for _, args := range [][]string{{"/nowhere/at/all"}, {"a", "b"}, {"--nonsense"}, {"--dsn", "host=127.0.0.1 port=1 connect_timeout=1"}, {"--dsn", "://"}} {
		var out bytes.Buffer
		if err := run(t.Context(), append([]string{"route"}, args...), strings.NewReader(""), &out, &out); err == nil {
			t.Errorf("route %q: no error", args)
		}
	}
}
