package main

import (
	"sync"
	"time"

	"pgweir/proxy"
)

// targets are what clients get by the configuration in force: those that ask for the same share one.
type targets struct {
	mu    sync.Mutex
	of    *Config // whose they are
	known map[asked]*proxy.Target
}

// asked is what a client comes with.
type asked struct {
	listener       int
	database, user string
}

// maxTargets bounds those that are remembered: names come from clients that nobody has asked for their password yet.
const maxTargets = 1024

// clientCheck is how often it is looked whether the clients of running statements are still there.
const clientCheck = time.Second

// parkAfter is how long a client is silent before its session gives its goroutine up.
const parkAfter = time.Second

// resolve is proxy.Config.Resolve.
func (s *server) resolve(listener int, database, user string) (*proxy.Target, error) {
	t, who := &s.targets, asked{listener: listener, database: database, user: user}
	t.mu.Lock()
	defer t.mu.Unlock()
	cfg := s.config.Load()
	if t.of != cfg || len(t.known) >= maxTargets {
		t.of, t.known = cfg, make(map[asked]*proxy.Target)
	}
	if target := t.known[who]; target != nil {
		return target, nil
	}
	target, err := s.target(cfg, who)
	if err == nil {
		t.known[who] = target
	}
	return target, err
}

// target makes what a client gets. With an error it has a cluster all the same: whoever asks for a database that is not
// there is asked for his password too.
func (s *server) target(cfg *Config, who asked) (*proxy.Target, error) {
	set, err := cfg.Settings(who.listener, who.database, who.user)
	if err != nil {
		return &proxy.Target{Cluster: s.clusters[0].cluster}, err
	}
	m := s.member(set.Cluster.Name)
	t := &proxy.Target{
		Cluster: m.cluster, Entry: who.database, Database: set.DBName, Marks: m.cluster.MarksOf(set.DBName),
		Route: set.Route, Consistency: set.Consistency, ReadFrom: set.ReadFrom, OnPrimary: set.ReadsOnPrimary,
		Pooled: set.PoolMode == "transaction", RealPID: set.PoolMode == "session" && set.BackendPID == "real", Zone: set.PreferZone, Offload: set.Offload, FreshnessWait: set.WaitAt,
		MaxLagBytes: set.Cluster.MaxLag.Bytes, MaxLagTime: set.Cluster.MaxLag.Time,
		ResetOpaque: set.Cluster.Routing.Opaque == "reset",
		Optimistic:  set.Transactions == "optimistic", BeginDefer: cfg.BeginDefer, HoldTimeout: cfg.Hold.Timeout, ConnectTimeout: cfg.Pool.ConnectTimeout,
		WaitTimeout: set.WaitTimeout, WaitNotify: set.WaitNotify, CancelTimeout: cfg.Pool.CancelTimeout, AddHost: set.AddHost,
		Times: set.Times,
	}
	t.Times.Check, t.Times.Park = clientCheck, parkAfter
	if set.ListenerRoute != nil {
		t.ListenerRoute = *set.ListenerRoute
	}
	return t, nil
}
