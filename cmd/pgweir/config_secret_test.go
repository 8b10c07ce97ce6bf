package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSecretIsNeverShown holds that no way of printing shows one.
func TestSecretIsNeverShown(t *testing.T) {
	c := loadText(t, "nodes: [pg-a]\nmonitor: {password: hunter2}\nusers: {u: {password: hunter2}}\n")
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "monitor", c.Monitor, "user", c.Users["u"], "password", c.Monitor.Password)
	fmt.Fprintf(&out, "%v %+v %#v %s %q", c.Monitor, c.Users["u"], c.Monitor, c.Monitor.Password, c.Monitor.Password)
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("shown: %s", out.String())
	}
}

// passwordNow asks a source once.
func passwordNow(t *testing.T, s *PasswordSource) string {
	t.Helper()
	p, err := s.Password(t.Context(), "pg-a", 5432)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPasswordFile holds that a changed file is read again.
func TestPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	s := NewPasswordSource(Monitor{PasswordFile: file})
	for _, want := range []string{"one", "t wo "} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := passwordNow(t, s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Password(t.Context(), "pg-a", 5432); err == nil {
		t.Error("a missing file is no error")
	}
}

// TestPasswordCommand holds that a command runs again after its time to live, once for all who
// ask, and that its failure is told in its own words.
func TestPasswordCommand(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	script := "echo x >> " + count + "; wc -l < " + count
	s := NewPasswordSource(Monitor{PasswordCommand: []string{"sh", "-c", script}, PasswordTTL: time.Hour})
	done := make(chan string)
	for range 5 {
		go func() {
			p, _ := s.Password(context.Background(), "pg-a", 5432)
			done <- p
		}()
	}
	for range 5 {
		if got := <-done; got != "1" {
			t.Errorf("got %q", got)
		}
	}
	s.until = time.Now().Add(-time.Second)
	if got := passwordNow(t, s); got != "2" {
		t.Errorf("after the time to live: %q", got)
	}
	for script, want := range map[string]string{"echo no token >&2; exit 3": "exit status 3: no token", "true": "printed nothing"} {
		_, err := NewPasswordSource(Monitor{PasswordCommand: []string{"sh", "-c", script}}).Password(t.Context(), "pg-a", 5432)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

// TestPassFile holds libpq's file, named by the configuration or by PGPASSFILE.
func TestPassFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte("pg-b:5432:*:mon:two\npg-a:5432:postgres:mon:one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Monitor{User: "mon", Database: "postgres"}
	t.Setenv("PGPASSFILE", file)
	if got := passwordNow(t, NewPasswordSource(m)); got != "one" {
		t.Errorf("PGPASSFILE: got %q", got)
	}
	t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "none"))
	if got := passwordNow(t, NewPasswordSource(m)); got != "" {
		t.Errorf("no file: got %q", got)
	}
	m.PassFile = file
	if got := passwordNow(t, NewPasswordSource(m)); got != "one" {
		t.Errorf("passfile: got %q", got)
	}
	if got, err := NewPasswordSource(m).Password(t.Context(), "", 0); got != "two" || err != nil {
		t.Errorf("any host: got %q, %v", got, err)
	}
}
