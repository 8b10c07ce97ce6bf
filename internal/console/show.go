package console

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table is something that can be shown.
type table struct {
	columns []Column
	rows    func(c *Console, s State) [][][]byte
}

// tables are what SHOW knows, by name.
func tables() map[string]table {
	sockets := append(slices.Clone(socketColumns()), ints("recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail")...)
	return map[string]table{
		"POOLS": {slices.Concat(texts("database", "user"), ints(
			"cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active", "sv_active_cancel", "sv_being_canceled",
			"sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us"), texts("pool_mode")), pools},
		"STATS": {slices.Concat(texts("database"), numerics(
			"total_xact_count", "total_query_count", "total_received", "total_sent", "total_xact_time", "total_query_time", "total_wait_time",
			"avg_xact_count", "avg_query_count", "avg_recv", "avg_sent", "avg_xact_time", "avg_query_time", "avg_wait_time",
			"total_requests")), stats}, // the last one is what PgBouncer 1.7 called total_query_count
		"STATS_TOTALS":   {slices.Concat(texts("database"), numerics(usageColumns()...)), statsTotals},
		"STATS_AVERAGES": {slices.Concat(texts("database"), numerics(usageColumns()...)), statsAverages},
		"TOTALS":         {append(texts("name"), numerics("value")...), totals},
		"DATABASES": {slices.Concat(texts("name", "host"), ints("port"), texts("database", "force_user"),
			ints("pool_size", "min_pool_size", "reserve_pool"), texts("pool_mode"), ints("max_connections", "current_connections", "paused", "disabled"),
			texts("cluster", "server_database")), databases},
		"CLIENTS": {append(socketColumns(), ints("id")...), clients},
		"SERVERS": {socketColumns(), servers},
		"SOCKETS": {sockets, func(c *Console, s State) [][][]byte {
			all := slices.Concat(clients(c, s), servers(c, s))
			for i := range all {
				all[i] = append(all[i][:len(socketColumns()):len(socketColumns())], make([][]byte, 7)...) // nobody knows how full another's buffers are
			}
			return all
		}},
		"USERS":   {texts("name", "pool_mode"), users},
		"LISTS":   {append(texts("list"), ints("items")...), lists},
		"CONFIG":  {texts("key", "value", "default", "changeable"), config},
		"VERSION": {texts("version"), func(c *Console, _ State) [][][]byte { return [][][]byte{{text(c.cfg.Version)}} }},
		"STATE":   {texts("key", "value"), state},
		"MEM":     {append(texts("name"), int8s("size", "used", "free", "memtotal")...), memory},
		"PEERS":   {slices.Concat(ints("peer_id"), texts("host"), ints("port", "pool_size")), peers},
		"NODES": {slices.Concat(texts("cluster", "node", "host"), ints("port"), texts("role", "state", "reads"), ints("timeline"),
			int8s("lag_bytes", "lag_us"), ints("version"), texts("detail")), nodes},
		"NODE_POOLS": {append(texts("cluster", "node", "database", "user"), ints("pool_size", "active", "idle", "opening", "waiting")...), nodePools},
		"PINS":       {slices.Concat(int8s("id"), texts("cluster", "database", "user", "application_name", "reason", "since", "node"), ints("remote_pid")), pins},
		"HOLDS":      {slices.Concat(int8s("id"), texts("cluster", "database", "user", "application_name"), int8s("wait_us")), holds},
		"ACTIVE": {slices.Concat(int8s("id"), texts("cluster", "database", "user", "application_name", "state", "node"), ints("remote_pid"),
			texts("request_time"), int8s("age_us")), active},
		"TIMEOUTS": {append(texts("cluster", "limit"), int8s("clients")...), timeouts},
		"EVENTS":   {texts("cluster", "time", "event"), events},
	}
}

// show understands a SHOW.
func (c *Console) show(ws []word) (*Command, error) {
	if len(ws) != 2 {
		return nil, unknown(ws)
	}
	name := ws[1].upper()
	if name == "HELP" {
		return help(), nil
	}
	t, ok := tables()[name]
	if !ok {
		return nil, unknown(ws)
	}
	return &Command{Columns: t.columns, run: func(context.Context) (Result, error) {
		return Result{Rows: t.rows(c, c.cfg.Source.State()), Tag: "SHOW"}, nil
	}}, nil
}

// help says what there is.
func help() *Command {
	var names []string
	for name := range tables() {
		names = append(names, name)
	}
	slices.Sort(names)
	detail := "\n\tSHOW " + strings.Join(names, "|") + "\n\tSHOW HELP\n\tWHO <pid> [<node>]\n\tPAUSE [<db>]\n\tRESUME [<db>]\n\tDISABLE <db>\n\tENABLE <db>" +
		"\n\tRECONNECT [<db>]\n\tKILL <db>\n\tKILL_CLIENT <id>\n\tRELOAD\n\tSHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]"
	return &Command{run: func(context.Context) (Result, error) {
		return Result{Tag: "SHOW", Notice: "Console usage", Detail: detail}, nil
	}}
}

// who understands WHO: from the pid of a backend on a node to the client.
func (c *Console) who(ws []word) (*Command, error) {
	if len(ws) != 2 && len(ws) != 3 {
		return nil, &Error{Code: codeSyntax, Message: "the pid of a backend is required", Hint: "For example: WHO 4711 pg-a"}
	}
	pid, err := strconv.ParseUint(ws[1].text, 10, 32)
	if err != nil {
		return nil, &Error{Code: codeSyntax, Message: "invalid pid " + strconv.Quote(ws[1].text), Hint: "For example: WHO 4711 pg-a"}
	}
	node := ""
	if len(ws) == 3 {
		node = ws[2].text
	}
	columns := slices.Concat(texts("cluster", "node"), ints("pid"), texts("state"), int8s("id"),
		texts("user", "database", "application_name", "addr"), ints("port"))
	return &Command{Columns: columns, run: func(context.Context) (Result, error) {
		s := c.cfg.Source.State()
		if node != "" && !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Name == node }) {
			return Result{}, &Error{Code: codeUnknown, Message: "no node is called " + strconv.Quote(node), Hint: "SHOW NODES lists them."}
		}
		return Result{Rows: whose(s, uint32(pid), node), Tag: "WHO"}, nil
	}}, nil
}

// whose is whom the connections to backends of a pid belong to.
func whose(s State, pid uint32, node string) [][][]byte {
	var out [][][]byte
	for _, v := range s.Servers {
		if v.PID != pid || node != "" && v.Node != node {
			continue
		}
		row := [][]byte{text(v.Cluster), text(v.Node), number(pid), text(v.state()), nil, text(v.User), text(v.Name), nil, nil, nil}
		for _, c := range s.Clients {
			if c.ID == v.Client && v.Client != 0 {
				row = [][]byte{
					text(v.Cluster), text(v.Node), number(pid), text(v.state()), number(c.ID), text(c.User), text(c.Name),
					text(c.Application), text(c.Addr), number(c.Port),
				}
			}
		}
		out = append(out, row)
	}
	return sorted(out)
}

// texts, ints, int8s and numerics are columns of one type.
func texts(names ...string) []Column { return columns(typeText, names) }

// ints are columns of type integer.
func ints(names ...string) []Column { return columns(typeInt4, names) }

// int8s are columns of type bigint.
func int8s(names ...string) []Column { return columns(typeInt8, names) }

// numerics are columns of type numeric.
func numerics(names ...string) []Column { return columns(typeNumeric, names) }

// columns are columns of one type.
func columns(typ uint32, names []string) []Column {
	out := make([]Column, len(names))
	for i, name := range names {
		out[i] = Column{name, typ}
	}
	return out
}

// text is a value that is never NULL.
func text(s string) []byte { return append([]byte{}, s...) }

// known is a value that is NULL where it is empty.
func known(s string) []byte {
	if s == "" {
		return nil
	}
	return text(s)
}

// number is a whole number.
func number[N ~int | ~int64 | ~uint64 | ~uint32](n N) []byte {
	return strconv.AppendInt(nil, int64(n), 10)
}

// positive is a number that is NULL where it is zero.
func positive[N ~int | ~int64 | ~uint32](n N) []byte {
	if n == 0 {
		return nil
	}
	return number(n)
}

// flag is a truth as PgBouncer has it in numbers.
func flag(b bool) []byte {
	if b {
		return []byte("1")
	}
	return []byte("0")
}

// yes is a truth in words.
func yes(b bool) []byte {
	if b {
		return []byte("yes")
	}
	return []byte("no")
}

// micros is a duration in microseconds.
func micros(d time.Duration) []byte { return number(d.Microseconds()) }

// moment is a time as PgBouncer writes it; "" for none.
func moment(t time.Time) []byte {
	if t.IsZero() {
		return []byte{}
	}
	return []byte(t.UTC().Format("2006-01-02 15:04:05 MST"))
}

// sorted puts rows in the order of their columns.
func sorted(rows [][][]byte) [][][]byte {
	slices.SortStableFunc(rows, func(a, b [][]byte) int {
		for i := range a {
			if d := cmp.Compare(string(a[i]), string(b[i])); d != 0 {
				return d
			}
		}
		return 0
	})
	return rows
}
