package console

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// poolRow is what one row of SHOW POOLS sums up.
type poolRow struct {
	active, waiting, cancels int
	serving, idle, opening   int
	longest                  time.Duration
	mode                     string
}

// poolKey is what a row of SHOW POOLS stands for.
type poolKey struct{ name, user string }

// pools is SHOW POOLS: a row for each database name and user, whatever node their connections go to.
func pools(_ *Console, s State) [][][]byte {
	rows := make(map[poolKey]*poolRow)
	at := func(name, user string) *poolRow {
		k := poolKey{name, user}
		if rows[k] == nil {
			rows[k] = &poolRow{}
			for _, d := range s.Databases {
				if d.Name == name {
					rows[k].mode = d.PoolMode
				}
			}
		}
		return rows[k]
	}
	for _, c := range s.Clients {
		r := at(c.Name, c.User)
		if r.mode = c.PoolMode; c.Waiting > 0 {
			r.waiting++
			r.longest = max(r.longest, c.Waiting)
		} else {
			r.active++
		}
		r.cancels += c.Cancels
	}
	for _, v := range s.Servers {
		r := at(v.Name, v.User)
		if v.Leased {
			r.serving++
		} else {
			r.idle++
		}
	}
	for _, p := range s.Pools {
		at(p.Name, p.User).opening += p.Opening
	}
	var out [][][]byte
	for k, r := range rows {
		// A cancel request waits for no connection here, one that is under way keeps its connection active, and
		// no connection is idle and untested.
		out = append(out, [][]byte{
			text(k.name), text(k.user), number(r.active), number(r.waiting), number(r.cancels), number(0), number(r.serving), number(r.cancels),
			number(0), number(r.idle), number(0), number(0), number(r.opening), number(int64(r.longest / time.Second)),
			number((r.longest % time.Second).Microseconds()), known(r.mode),
		})
	}
	return sorted(out)
}

// usageColumns are the columns of SHOW STATS_TOTALS and STATS_AVERAGES behind the first.
func usageColumns() []string {
	return []string{"xact_count", "query_count", "bytes_received", "bytes_sent", "xact_time", "query_time", "wait_time"}
}

// values is a usage as PgBouncer has it, times in microseconds.
func (u Usage) values() [][]byte {
	return [][]byte{
		number(u.Transactions), number(u.Queries), number(u.Received), number(u.Sent), micros(u.InTransaction), micros(u.InQuery), micros(u.Waited),
	}
}

// each makes a row for every database that is not the console.
func each(s State, row func(d Database) [][]byte) [][][]byte {
	var out [][][]byte
	for _, d := range s.Databases {
		if !d.IsConsole {
			out = append(out, row(d))
		}
	}
	return sorted(out)
}

// stats is SHOW STATS.
func stats(c *Console, s State) [][][]byte {
	return each(s, func(d Database) [][]byte {
		return slices.Concat([][]byte{text(d.Name)}, d.Usage.values(), c.meter.average(d.Name).values(), [][]byte{number(d.Usage.Queries)})
	})
}

// statsTotals is SHOW STATS_TOTALS.
func statsTotals(_ *Console, s State) [][][]byte {
	return each(s, func(d Database) [][]byte { return append([][]byte{text(d.Name)}, d.Usage.values()...) })
}

// statsAverages is SHOW STATS_AVERAGES.
func statsAverages(c *Console, s State) [][][]byte {
	return each(s, func(d Database) [][]byte { return append([][]byte{text(d.Name)}, c.meter.average(d.Name).values()...) })
}

// totals is SHOW TOTALS: sums over all databases. A time for each transaction or query is weighted by their number.
func totals(c *Console, s State) [][][]byte {
	var sum, avg Usage
	for _, d := range s.Databases {
		u, a := d.Usage, c.meter.average(d.Name)
		sum.Transactions += u.Transactions
		sum.Queries += u.Queries
		sum.Received += u.Received
		sum.Sent += u.Sent
		sum.InTransaction += u.InTransaction
		sum.InQuery += u.InQuery
		sum.Waited += u.Waited
		avg.Transactions += a.Transactions
		avg.Queries += a.Queries
		avg.Received += a.Received
		avg.Sent += a.Sent
		avg.InTransaction += a.InTransaction * time.Duration(a.Transactions)
		avg.InQuery += a.InQuery * time.Duration(a.Queries)
		avg.Waited += a.Waited
	}
	avg.InTransaction /= time.Duration(max(avg.Transactions, 1))
	avg.InQuery /= time.Duration(max(avg.Queries, 1))
	names := []string{"xact_count", "query_count", "client_bytes", "server_bytes", "xact_time", "query_time", "wait_time"}
	var out [][][]byte
	for _, part := range []struct {
		prefix string
		of     Usage
	}{{"total_", sum}, {"avg_", avg}} {
		for i, v := range part.of.values() {
			out = append(out, [][]byte{text(part.prefix + names[i]), v})
		}
	}
	return out
}

// databases is SHOW DATABASES. Its database is the name that clients ask for, as in all other tables: exporters take it for
// a key, and two names may lead to the same database of a server.
func databases(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, d := range s.Databases {
		out = append(out, [][]byte{
			text(d.Name), known(d.Host), positive(d.Port), text(d.Name), nil, number(d.PoolSize), number(d.MinSize), number(d.Reserve),
			known(d.PoolMode), number(d.MaxConns), number(d.Current), flag(d.Paused), flag(d.Disabled),
			known(d.Cluster), text(d.Database),
		})
	}
	return sorted(out)
}

// socketColumns are the columns that clients and servers have in common.
func socketColumns() []Column {
	return slices.Concat(texts("type", "user", "database", "state", "addr"), ints("port"), texts("local_addr"), ints("local_port"),
		texts("connect_time", "request_time"), ints("wait", "wait_us", "close_needed"), texts("ptr", "link"), ints("remote_pid"), texts("tls", "application_name"))
}

// clients is SHOW CLIENTS.
func clients(_ *Console, s State) [][][]byte {
	all := slices.Clone(s.Clients)
	slices.SortFunc(all, func(a, b Client) int { return int(int64(a.ID) - int64(b.ID)) })
	var out [][][]byte
	for _, c := range all {
		state := "active"
		if c.Waiting > 0 {
			state = "waiting"
		}
		link := ""
		if c.ServerPID != 0 {
			link = pointer(c.Cluster, c.Node, c.ServerPID)
		}
		request := c.Request
		if request.IsZero() {
			request = c.Since
		}
		out = append(out, [][]byte{
			text("C"), text(c.User), text(c.Name), text(state), text(c.Addr), number(c.Port), text(c.Local), number(c.LocalPort),
			moment(c.Since), moment(request), number(int64(c.Waiting / time.Second)), number((c.Waiting % time.Second).Microseconds()), flag(false),
			text(fmt.Sprintf("%#x", c.ID)), text(link), number(c.ServerPID), text(c.TLS), text(c.Application), number(c.ID),
		})
	}
	return out
}

// pointer names a connection to a node.
func pointer(cluster, node string, pid uint32) string {
	return cluster + "/" + node + "/" + strconv.FormatUint(uint64(pid), 10)
}

// state is a connection's state as PgBouncer has it.
func (v Server) state() string {
	if v.Leased {
		return "active"
	}
	return "idle"
}

// servers is SHOW SERVERS.
func servers(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, v := range s.Servers {
		link, encrypted := "", ""
		if v.Client != 0 {
			link = fmt.Sprintf("%#x", v.Client)
		}
		if v.TLS {
			encrypted = "yes"
		}
		out = append(out, [][]byte{
			text("S"), text(v.User), text(v.Name), text(v.state()), text(v.Addr), number(v.Port), text(v.Local), number(v.LocalPort),
			moment(v.Opened), moment(v.Request), number(0), number(0), flag(v.Closing), text(pointer(v.Cluster, v.Node, v.PID)), text(link),
			number(v.PID), text(encrypted), text(v.Application),
		})
	}
	return sorted(out)
}

// users is SHOW USERS.
func users(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, u := range s.Users {
		out = append(out, [][]byte{text(u.Name), known(u.PoolMode)})
	}
	return sorted(out)
}

// lists is SHOW LISTS. Nothing is kept in free lists, and no names are resolved for clients.
func lists(c *Console, s State) [][][]byte {
	var out [][][]byte
	for _, l := range []struct {
		name string
		n    int
	}{
		{"databases", len(s.Databases)},
		{"users", len(s.Users)},
		{"pools", len(pools(c, s))},
		{"free_clients", 0},
		{"used_clients", len(s.Clients)},
		{"login_clients", s.Arriving},
		{"free_servers", 0},
		{"used_servers", len(s.Servers)},
		{"dns_names", 0},
		{"dns_zones", 0},
		{"dns_queries", 0},
		{"dns_pending", 0},
	} {
		out = append(out, [][]byte{text(l.name), number(l.n)})
	}
	return out
}

// config is SHOW CONFIG.
func config(c *Console, _ State) [][][]byte {
	var out [][][]byte
	for _, v := range c.cfg.Source.Settings() {
		out = append(out, [][]byte{text(v.Key), text(v.Value), text(v.Default), yes(v.Changeable)})
	}
	return out
}

// state is SHOW STATE.
func state(_ *Console, s State) [][][]byte {
	return [][][]byte{
		{text("active"), yes(!s.Paused && !s.Stopping)}, {text("paused"), yes(s.Paused)}, {text("suspended"), yes(false)}, {text("stopping"), yes(s.Stopping)},
	}
}

// memory is SHOW MEM.
func memory(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, m := range s.Memory {
		out = append(out, [][]byte{text(m.Name), number(m.Size), number(m.Count), number(0), number(m.Total)})
	}
	return out
}

// peers is SHOW PEERS.
func peers(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, p := range s.Peers {
		out = append(out, [][]byte{number(p.Process), text(p.Host), number(p.Port), number(p.PoolSize)})
	}
	return out
}

// nodes is SHOW NODES.
func nodes(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, n := range s.Nodes {
		row := [][]byte{
			text(n.Cluster), text(n.Name), text(n.Host), number(n.Port), text(n.Role), text(n.State), yes(n.Reads), positive(n.Timeline),
			nil, nil, positive(n.Version), known(n.Detail),
		}
		if n.LagBytes >= 0 {
			row[8], row[9] = number(n.LagBytes), micros(n.Lag)
		}
		out = append(out, row)
	}
	return sorted(out)
}

// nodePools is SHOW NODE_POOLS.
func nodePools(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, p := range s.Pools {
		out = append(out, [][]byte{
			text(p.Cluster), text(p.Node), text(p.Database), text(p.User), number(p.Size), number(p.Leased), number(p.Idle), number(p.Opening), number(p.Waiting),
		})
	}
	return sorted(out)
}

// sessions makes a row for every client that is to be seen, in the order of their ids.
func sessions(s State, row func(c Client) [][]byte) [][][]byte {
	all := slices.Clone(s.Clients)
	slices.SortFunc(all, func(a, b Client) int { return int(int64(a.ID) - int64(b.ID)) })
	var out [][][]byte
	for _, c := range all {
		if c.IsConsole {
			continue
		}
		if r := row(c); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// pins is SHOW PINS: the clients that keep their connection to the primary, and why.
func pins(_ *Console, s State) [][][]byte {
	return sessions(s, func(c Client) [][]byte {
		if c.Pin == "" {
			return nil
		}
		return [][]byte{
			number(c.ID), text(c.Cluster), text(c.Name), text(c.User), text(c.Application), text(c.Pin), moment(c.Pinned), known(c.Node), positive(c.ServerPID),
		}
	})
}

// holds is SHOW HOLDS: the clients that wait for a connection.
func holds(_ *Console, s State) [][][]byte {
	return sessions(s, func(c Client) [][]byte {
		if c.Waiting == 0 {
			return nil
		}
		return [][]byte{number(c.ID), text(c.Cluster), text(c.Name), text(c.User), text(c.Application), micros(c.Waiting)}
	})
}

// active is SHOW ACTIVE: the clients that hold a connection or wait for one.
func active(_ *Console, s State) [][][]byte {
	return sessions(s, func(c Client) [][]byte {
		state := ""
		switch {
		case c.Waiting > 0:
			state = "waiting"
		case c.Running:
			state = "running"
		case c.Holding:
			state = "holding"
		default:
			return nil
		}
		var age []byte
		if !c.Request.IsZero() {
			age = micros(s.Now.Sub(c.Request))
		}
		return [][]byte{
			number(c.ID), text(c.Cluster), text(c.Name), text(c.User), text(c.Application), text(state), known(c.Node), positive(c.ServerPID),
			moment(c.Request), age,
		}
	})
}

// timeouts is SHOW TIMEOUTS: how many clients were disconnected by each limit of time.
func timeouts(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, t := range s.Timeouts {
		out = append(out, [][]byte{text(t.Cluster), text(t.Limit), number(t.Clients)})
	}
	return sorted(out)
}

// events is SHOW EVENTS.
func events(_ *Console, s State) [][][]byte {
	var out [][][]byte
	for _, e := range s.Events {
		out = append(out, [][]byte{text(e.Cluster), moment(e.At), text(e.Text)})
	}
	return out
}
