package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"

	"pgweir/internal/auth"
	"pgweir/internal/console"
	"pgweir/internal/pgwire"
	"pgweir/proxy"
	"pgweir/router"
)

// pgbouncerName is the other name of the console's database: what is made for PgBouncer asks for it.
const pgbouncerName = "pgbouncer"

// newConsole makes the console of a server that is not wired yet.
func (s *server) newConsole() (*console.Console, error) {
	cc := console.DefaultConfig()
	cc.Source, cc.Control, cc.Version = &consoleSource{s}, &consoleControl{s}, "pgweir "+buildInfo().Version
	return console.New(cc)
}

// consoleOf is what the proxy serves as the console.
func (s *server) consoleOf() *proxy.Console {
	return &proxy.Console{
		Serves: func(database string) bool { return s.config.Load().isConsole(database) },
		Users:  everyCluster(s.clusters),
		Admit: func(user string) (func(string) ([]proxy.ConsoleCommand, error), bool) {
			if s.consoleRole(user) == "" {
				return nil, false
			}
			return func(sql string) ([]proxy.ConsoleCommand, error) {
				role := s.consoleRole(user) // a reload may have changed it
				if role == "" {
					return nil, &proxy.ConsoleError{Code: "42501", Message: fmt.Sprintf("user %q may not use the console any more", user)}
				}
				commands, err := s.console.Read(user, role, sql)
				if err != nil {
					return nil, told(err)
				}
				return forProxy(commands), nil
			}, true
		},
		Params: []pgwire.Param{
			{Name: "server_version", Value: buildInfo().Version + "/pgweir"},
			{Name: "server_encoding", Value: "UTF8"},
			{Name: "client_encoding", Value: "UTF8"},
			{Name: "DateStyle", Value: "ISO, MDY"},
			{Name: "TimeZone", Value: "UTC"},
			{Name: "integer_datetimes", Value: "on"},
			{Name: "standard_conforming_strings", Value: "on"},
		},
	}
}

// isConsole says whether a name that a client asks for is the console's.
func (c *Config) isConsole(database string) bool {
	return database == c.Console.Database || database == pgbouncerName && c.Databases[pgbouncerName] == nil
}

// consoleRole is what a user may do on the console; "" for nothing.
func (s *server) consoleRole(user string) console.Role {
	cfg := s.config.Load()
	if len(cfg.Admin.Users) > 0 {
		return console.Role(cfg.Admin.Users[user])
	}
	for _, m := range s.clusters {
		if m.conf.Monitor.User == user {
			return console.RoleAdmin
		}
	}
	return ""
}

// forProxy is commands as the proxy runs them.
func forProxy(commands []console.Command) []proxy.ConsoleCommand {
	out := make([]proxy.ConsoleCommand, len(commands))
	for i := range commands {
		c := &commands[i]
		out[i] = proxy.ConsoleCommand{Waits: c.Waits, Run: func(ctx context.Context) (proxy.ConsoleResult, error) {
			r, err := c.Run(ctx)
			if err != nil {
				return proxy.ConsoleResult{}, told(err)
			}
			return proxy.ConsoleResult(r), nil
		}}
		for _, col := range c.Columns {
			out[i].Columns = append(out[i].Columns, proxy.ConsoleColumn(col))
		}
	}
	return out
}

// told is an error of the console as the proxy tells it.
func told(err error) error {
	var e *console.Error
	if !errors.As(err, &e) {
		return err
	}
	p := proxy.ConsoleError(*e)
	return &p
}

// everyCluster knows the users of all clusters: the first cluster that knows a user decides. One that cannot be asked
// hides no user of another.
type everyCluster []*member

// Lookup is the secret of the user.
func (e everyCluster) Lookup(ctx context.Context, user string) (auth.Secret, error) {
	answer := auth.ErrNoUser
	for _, m := range e {
		secret, err := m.cluster.Auth.Lookup(ctx, user)
		if err == nil {
			return secret, nil
		}
		if !errors.Is(err, auth.ErrNoUser) && errors.Is(answer, auth.ErrNoUser) {
			answer = err
		}
	}
	return auth.Secret{}, answer
}

// Forget passes on to the clusters that remember.
func (e everyCluster) Forget(user string) {
	for _, m := range e {
		if f, ok := m.cluster.Auth.(auth.Forgetter); ok {
			f.Forget(user)
		}
	}
}

// consoleSource is what the console shows of a server.
type consoleSource struct{ s *server }

// Settings is the configuration in force.
func (v *consoleSource) Settings() []console.Setting {
	defaults := make(map[string]string)
	for _, e := range DefaultConfig().Effective() {
		defaults[e.Path] = e.Value
	}
	var out []console.Setting
	for _, e := range v.s.config.Load().Effective() {
		out = append(out, console.Setting{Key: e.Path, Value: e.Value, Default: defaults[e.Path], Changeable: !needsRestart(e.Path)})
	}
	return out
}

// State is everything that there is to show, now.
func (v *consoleSource) State() console.State {
	st := console.State{Now: time.Now(), Arriving: v.s.proxy.Arriving(), Memory: memoryUse(), Paused: v.s.proxy.AllPaused(), Stopping: v.s.proxy.Stopping()}
	apps := v.clients(&st)
	v.servers(&st, apps)
	for _, p := range v.s.pool.Stats() {
		st.Pools = append(st.Pools, console.Pool{
			Name: p.Entry, Cluster: p.Cluster, Node: p.NodeName, Database: p.Database, User: p.User,
			Size: p.Size, Idle: p.Idle, Leased: p.Leased, Opening: p.Opening, Waiting: p.Waiting,
		})
	}
	v.databases(&st)
	v.users(&st)
	for _, m := range v.s.clusters {
		for _, c := range m.cluster.Closed() {
			st.Timeouts = append(st.Timeouts, console.Timeout{Cluster: m.name, Limit: c.Limit, Clients: c.Clients})
		}
	}
	for _, p := range v.s.config.Load().Peers {
		host, port := splitAddr(p.Addr)
		st.Peers = append(st.Peers, console.Peer{Process: p.Process, Host: host, Port: port, PoolSize: proxy.MaxForwards})
	}
	for _, c := range (&shown{v.s}).Clusters() {
		for _, n := range c.Nodes {
			st.Nodes = append(st.Nodes, console.Node{
				Cluster: c.Name, Name: n.Name, Host: n.Host, Port: n.Port, Role: n.Role, State: n.State, Detail: n.Detail, Reads: n.Reads,
				Timeline: n.Timeline, LagBytes: n.LagBytes, Lag: n.Lag, Version: n.Version,
			})
		}
		for _, e := range c.Events {
			st.Events = append(st.Events, console.Event{Cluster: c.Name, At: e.At, Text: e.Text})
		}
	}
	return st
}

// clients fills in the clients, and returns their application names by pid.
func (v *consoleSource) clients(st *console.State) map[uint32]string {
	apps := make(map[uint32]string)
	add := func(c proxy.ClientView) *console.Client {
		out := console.Client{
			ID: c.PID, User: c.User, Name: c.Entry, Cluster: c.Cluster, Application: c.Application, TLS: c.TLS, Since: c.Since, Request: c.Request,
			PoolMode: "session", Running: c.Running, Holding: c.Holding, Waiting: c.Waiting, Cancels: c.Cancels, Pinned: c.Pinned,
		}
		out.Addr, out.Port = hostPort(c.Addr)
		out.Local, out.LocalPort = hostPort(c.Local)
		if c.Pooled {
			out.PoolMode = "transaction"
		}
		if c.Pin != router.PinNone {
			out.Pin = c.Pin.String()
		}
		apps[c.PID] = c.Application
		st.Clients = append(st.Clients, out)
		return &st.Clients[len(st.Clients)-1]
	}
	for _, c := range v.s.proxy.Clients() {
		add(c)
	}
	for _, c := range v.s.proxy.ConsoleClients() {
		out := add(c.ClientView)
		out.IsConsole, out.PoolMode = true, "statement"
	}
	return apps
}

// servers fills in the connections to nodes, and whose they are.
func (v *consoleSource) servers(st *console.State, apps map[uint32]string) {
	holds := make(map[uint32]*console.Client)
	for i := range st.Clients {
		holds[st.Clients[i].ID] = &st.Clients[i]
	}
	for _, c := range v.s.proxy.Servers() {
		out := console.Server{
			User: c.User, Name: c.Entry, Cluster: c.Cluster, Node: c.NodeName, Application: apps[c.Client], TLS: c.TLS, Opened: c.Opened, Request: c.Request,
			Leased: c.IdleSince.IsZero(), Closing: c.Retired, PID: c.PID, Client: c.Client,
		}
		out.Addr, out.Port = hostPort(c.Addr)
		out.Local, out.LocalPort = hostPort(c.Local)
		// One that reads from a standby may hold its connection to the primary as well, which then has the lower number.
		if h := holds[c.Client]; h != nil && h.ServerPID == 0 {
			h.Node, h.ServerPID = c.NodeName, c.PID
		}
		st.Servers = append(st.Servers, out)
	}
}

// databases fills in the names that clients may ask for: those of the configuration, and those that a client has
// asked for already where "*" takes them.
func (v *consoleSource) databases(st *console.State) {
	cfg := v.s.config.Load()
	doors := make(map[string]proxy.DoorView)
	for _, d := range v.s.proxy.Doors() {
		doors[d.Name] = d
	}
	names := slices.Collect(maps.Keys(doors))
	for name := range cfg.Databases {
		if _, known := doors[name]; !known && name != "*" {
			names = append(names, name)
		}
	}
	for _, name := range names {
		door := doors[name]
		out := console.Database{Name: name, Paused: door.Paused, Disabled: door.Disabled, Usage: console.Usage(door.Usage)}
		for _, srv := range st.Servers {
			if srv.Name == name {
				out.Current++
			}
		}
		if set, err := cfg.Settings(0, name, ""); err == nil {
			out.Cluster, out.Database, out.PoolMode = set.Cluster.Name, set.DBName, set.PoolMode
			out.PoolSize, out.MinSize, out.Reserve, out.MaxConns = set.Pool.Size, set.Pool.Min, set.Pool.Reserve, set.Pool.MaxDatabase
			if p := v.s.member(set.Cluster.Name).monitor.Snapshot().Primary; p != nil {
				out.Host, out.Port = splitAddr(p.Addr)
			}
		}
		st.Databases = append(st.Databases, out)
	}
	for _, name := range []string{cfg.Console.Database, pgbouncerName} {
		if cfg.isConsole(name) && !slices.ContainsFunc(st.Databases, func(d console.Database) bool { return d.Name == name }) {
			st.Databases = append(st.Databases, console.Database{Name: name, Database: name, PoolMode: "statement", IsConsole: true})
		}
	}
}

// users fills in the users who are configured or here.
func (v *consoleSource) users(st *console.State) {
	modes := make(map[string]string)
	for _, c := range st.Clients {
		modes[c.User] = ""
	}
	for _, p := range st.Pools {
		modes[p.User] = ""
	}
	for name, u := range v.s.config.Load().Users {
		modes[name] = ""
		if u.PoolMode != nil {
			modes[name] = *u.PoolMode
		}
	}
	for name, mode := range modes {
		st.Users = append(st.Users, console.User{Name: name, PoolMode: mode})
	}
}

// hostPort is an address as PgBouncer shows it: "unix" for a Unix socket.
func hostPort(a net.Addr) (string, int) {
	if a.Network() == "unix" {
		return "unix", 0
	}
	return splitAddr(a.String())
}

// splitAddr is host and port of an address; a path has no port.
func splitAddr(addr string) (string, int) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0
	}
	n, _ := strconv.Atoi(port) // the addresses of sockets are numbers
	return host, n
}

// memoryUse is what the process takes, as its runtime knows it.
func memoryUse() []console.Memory {
	samples := []metrics.Sample{
		{Name: "/gc/heap/objects:objects"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(samples)
	at := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	return []console.Memory{
		{Name: "heap_objects", Count: at(0), Total: at(1)}, {Name: "goroutine_stacks", Count: at(2), Total: at(3)}, {Name: "process", Count: 1, Total: at(4)},
	}
}

// consoleControl carries out the console's orders.
type consoleControl struct{ s *server }

// Carry carries out one order, and logs it.
func (k *consoleControl) Carry(ctx context.Context, user string, o console.Order) error {
	log := k.s.log.With("user", user, "command", string(o.Verb))
	if o.Database != "" {
		log = log.With("database", o.Database)
	}
	if o.Client != 0 {
		log = log.With("client_id", o.Client)
	}
	log.Info("console command")
	err := k.carry(ctx, o)
	if err != nil {
		log.Warn("console command was not carried out", "error", err)
	}
	return err
}

// carry carries out one order.
func (k *consoleControl) carry(ctx context.Context, o console.Order) error {
	switch o.Verb {
	case console.Reload, console.Shutdown:
		return k.s.pull(ctx, o)
	case console.KillClient:
		ctx, cancel := k.bound(ctx)
		defer cancel()
		return k.explain(o, k.s.proxy.KillClient(ctx, o.Client))
	}
	of, err := k.names(o.Database)
	if err != nil {
		return k.explain(o, err)
	}
	waiting, cancel := k.bound(ctx)
	defer cancel()
	switch o.Verb {
	case console.Pause:
		err = k.s.proxy.Pause(waiting, of)
		k.s.still(of, err)
	case console.Resume:
		err = k.s.proxy.Resume(of.Name)
		k.s.pool.Refresh()
	case console.Disable:
		err = k.s.proxy.Disable(of, true)
	case console.Enable:
		err = k.s.proxy.Disable(of, false)
	case console.Reconnect:
		k.s.proxy.Reconnect(of)
	case console.Kill:
		err = k.s.proxy.Kill(waiting, of)
		k.s.still(of, err)
	default:
		panic("BUG: an order that nobody carries out: " + string(o.Verb))
	}
	return k.explain(o, err)
}

// still has the pools take note of a pause, and closes what they have opened meanwhile.
func (s *server) still(of proxy.Names, err error) {
	s.pool.Refresh()
	if err == nil {
		s.proxy.Reconnect(of)
	}
}

// bound is a context that ends when transactions have been waited for long enough.
func (k *consoleControl) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, k.s.config.Load().DrainTimeout)
}

// names is what an order's database stands for: it must be in the configuration, or a client must have asked for it.
func (k *consoleControl) names(name string) (proxy.Names, error) {
	of := proxy.Names{Name: name}
	if name == "" {
		return of, nil
	}
	cfg := k.s.config.Load()
	of.Known = cfg.Databases[name] != nil && name != "*"
	here := slices.ContainsFunc(k.s.proxy.Doors(), func(d proxy.DoorView) bool { return d.Name == name })
	if !of.Known && !here {
		return of, proxy.ErrUnknownDatabase
	}
	return of, nil
}

// explain is an error in the words of the console.
func (k *consoleControl) explain(o console.Order, err error) error {
	var held *proxy.StillHeld
	what := "everything"
	if o.Database != "" {
		what = fmt.Sprintf("database %q", o.Database)
	}
	switch {
	case errors.Is(err, proxy.ErrUnknownDatabase):
		return &console.Error{
			Code: "3D000", Message: fmt.Sprintf("database %q does not exist", o.Database),
			Detail: "It is not in the configuration, and no client has asked for it.", Hint: "SHOW DATABASES lists the names.",
		}
	case errors.Is(err, proxy.ErrUnknownClient):
		return &console.Error{Code: "42704", Message: fmt.Sprintf("client %d does not exist", o.Client), Hint: "SHOW CLIENTS has it in the column id."}
	case errors.Is(err, proxy.ErrPaused):
		return &console.Error{Code: "55000", Message: what + " is paused already", Hint: "RESUME lets clients go on."}
	case errors.Is(err, proxy.ErrNotPaused):
		return &console.Error{Code: "55000", Message: what + " is not paused"}
	case errors.As(err, &held) && o.Verb == console.Pause:
		return &console.Error{
			Code: "55006", Message: what + " could not be paused: clients still hold connections",
			Detail: fmt.Sprintf("%d of them did not let go in %s (drain_timeout). Everything goes on as before.", held.Sessions, k.s.config.Load().DrainTimeout),
			Hint:   "SHOW ACTIVE and SHOW PINS say who they are, KILL_CLIENT ends one.",
		}
	case errors.As(err, &held):
		return &console.Error{Code: "55006", Message: "clients were told to end and have not yet", Detail: fmt.Sprintf("There are %d of them.", held.Sessions)}
	}
	return err
}

// pull hands an order about the whole process to whoever obeys.
func (s *server) pull(ctx context.Context, o console.Order) error {
	done := make(chan error, 1)
	select {
	case s.levers <- lever{o, done}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := <-done; err != nil {
		return &console.Error{Code: "F0000", Message: "the configuration was not reloaded; the running one stays", Detail: err.Error()}
	}
	return nil
}
