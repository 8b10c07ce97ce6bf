package main

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
)

// TestTargetsShared: clients that ask for the same share what they get, until the configuration changes, and there is
// an end to what is remembered.
func TestTargetsShared(t *testing.T) {
	s, err := newServer(loadText(t, running), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	get := func(listener int, database, user string) any {
		t.Helper()
		target, err := s.resolve(listener, database, user)
		if err != nil || target.Entry != database {
			t.Fatalf("%+v, %v", target, err)
		}
		return target
	}
	first := get(0, "app", "u")
	if get(0, "app", "u") != first {
		t.Error("the same question has another answer")
	}
	for what, other := range map[string]any{"listener": get(1, "app", "u"), "database": get(0, "old", "u"), "user": get(0, "app", "v")} {
		if other == first {
			t.Errorf("another %s has the same answer", what)
		}
	}
	s.config.Store(loadText(t, running))
	if get(0, "app", "u") == first {
		t.Error("the answer is that of the configuration before")
	}
	for i := range 2 * maxTargets {
		get(0, "app", fmt.Sprint(i))
	}
	if n := len(s.targets.known); n == 0 || n > maxTargets {
		t.Errorf("%d are remembered", n)
	}
	s.config.Store(loadText(t, "clusters: {shop: {nodes: [pg-a]}}\ndatabases: {app: {cluster: shop}}"))
	if target, err := s.resolve(0, "nowhere", "u"); err == nil || target.Cluster == nil || len(s.targets.known) > 0 {
		t.Errorf("no such database: %+v, %v, %d remembered", target, err, len(s.targets.known))
	}
}
