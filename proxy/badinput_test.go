package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"pgweir/health"
	"pgweir/internal/pgtest"
)

// startupPacket is a packet without a type byte: its length, a code, what follows.
func startupPacket(code uint32, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, code), rest...)
}

// frame is a message with a length of the test's choice.
func frame(typ byte, length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
}

// version is the code of protocol 3.0.
const version = 3 << 16

// TestBadStartup: malformed beginnings end with PostgreSQL's own SQLSTATE, or without a word where
// PostgreSQL says none, at once, and nobody else is disturbed.
func TestBadStartup(t *testing.T) {
	r := newRig(t)
	other := r.client()
	login := "user\x00alice\x00database\x00app\x00\x00"
	ssl, cancel := pgtest.SSLRequest().Bytes(), pgtest.CancelRequest(1, []byte{1, 2, 3, 4}).Bytes()
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	start := startupPacket(version, login)
	for _, c := range []struct {
		name string
		send []byte
		want string // what the server says; "" nothing
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
		{"length 0", frame(0, 0, "")[1:], ""},
		{"length 3", frame(0, 3, "\x00\x03\x00\x00")[1:], ""},
		{"length 2³¹−1", frame(0, 1<<31-1, "\x00\x03\x00\x00")[1:], ""},
		{"length 2³¹", frame(0, 1<<31, "\x00\x03\x00\x00")[1:], ""},
		{"length 2³²−1", frame(0, 1<<32-1, "\x00\x03\x00\x00")[1:], ""},
		{"10,001 bytes", startupPacket(version, "user\x00"+strings.Repeat("x", 10_001)), ""},
		{"protocol 2.0", startupPacket(2<<16, login), "E(FATAL 0A000)"},
		{"protocol 4.0", startupPacket(4<<16, login), "E(FATAL 0A000)"},
		{"no user", startupPacket(version, "database\x00app\x00\x00"), "E(FATAL 28000)"},
		{"no end", startupPacket(version, "user\x00alice"), "E(FATAL 08P01)"},
		{"data behind SSLRequest", join(ssl, start), "E(FATAL 08P01)"},
		{"data behind GSSENCRequest", join(pgtest.GSSENCRequest().Bytes(), start), "E(FATAL 08P01)"},
		{"replication of a wrong kind", startupPacket(version, "user\x00alice\x00replication\x00perhaps\x00\x00"), "E(FATAL 22023)"},
		{"TLS without TLS", []byte{0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5}, ""},
		{"a second StartupMessage", join(start, startupPacket(version, "user\x00bob\x00database\x00app\x00\x00")), "R E(FATAL 08P01)"},
		{"an SSLRequest during the login", join(start, ssl), "R E(FATAL 08P01)"},
		{"a CancelRequest during the login", join(start, cancel), "R E(FATAL 08P01)"},
		{"a query before the password", join(start, pgtest.Query("SELECT 1").Bytes()), "R E(FATAL 08P01)"},
		{"a wrong password", join(start, pgtest.Password("md5wrong").Bytes()), "R E(FATAL 28P01)"},
		{"a password of 2³¹−1 bytes", join(start, frame('p', 1<<31-1, "x")), "R"},
		{"a password of 3 bytes", join(start, frame('p', 3, "x")), "R"},
		{"options that end in nothing", startupPacket(version, "user\x00alice\x00database\x00app\x00options\x00-c\x00\x00"), "R"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := rawExchange(r.addr, c.send)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			equal(t, "answer", got, c.want)
		})
	}
	equal(t, "somebody else", strings.HasSuffix(other.query("SELECT 1"), "Z(I)"), true)
	for name, cfg := range map[string]pgtest.ClientConfig{
		"E(FATAL 28P01 pgweir)":   {User: "nobody", Database: "app", Password: "secret"},
		"E(FATAL 28P01 pgweir) ":  {User: "bob", Database: "app", Password: "wrong"},
		"E(FATAL 28P01 pgweir)  ": {User: "bob", Database: "nowhere", Password: "wrong"},
	} {
		cfg.Addr = r.addr
		equal(t, fmt.Sprintf("%s at %s", cfg.User, cfg.Database), loginError(t, cfg), strings.TrimSpace(name))
	}
}

// rawExchange sends bytes and reads until the server closes, or for half a second where it waits.
func rawExchange(addr string, send []byte) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write(send); err != nil {
		return "", err
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	all, err := io.ReadAll(conn)
	var ms []pgtest.Message
	for rest := strings.NewReader(string(all)); ; {
		m, e := pgtest.ReadMessage(rest)
		if e != nil {
			break
		}
		m.Body = append([]byte(nil), m.Body...)
		ms = append(ms, m)
	}
	got := short(ms)
	return strings.ReplaceAll(got, " pgweir)", ")"), err
}

// TestBadMessages: what no client may send after the login ends the connection, with FATAL 08P01 where
// PostgreSQL says so, and nothing of it reaches a node.
func TestBadMessages(t *testing.T) {
	r := newRig(t)
	silent := map[string]bool{}
	for _, name := range []string{"length 0", "length 3", "length 2³¹", "length 2³²−1", "a Sync of a megabyte", "an Execute of a gigabyte"} {
		silent[name] = true // PostgreSQL, too, writes a wrong length to its log only
	}
	for name, send := range map[string][]byte{
		"a StartupMessage":         startupPacket(version, "user\x00bob\x00\x00"),
		"an SSLRequest":            pgtest.SSLRequest().Bytes(),
		"a CancelRequest":          pgtest.CancelRequest(1, []byte{1, 2, 3, 4}).Bytes(),
		"an unknown type":          frame('z', 4, ""),
		"a message of a server":    frame('Z', 5, "I"),
		"a password":               pgtest.Password("secret").Bytes(),
		"length 0":                 frame('Q', 0, ""),
		"length 3":                 frame('Q', 3, ""),
		"length 2³¹":               frame('Q', 1<<31, ""),
		"length 2³²−1":             frame('Q', 1<<32-1, ""),
		"a Sync of a megabyte":     frame('S', 1<<20, ""),
		"an Execute of a gigabyte": frame('E', 1<<30, ""),
		"HTTP":                     []byte("GET / HTTP/1.1\r\n\r\n"),
		"in a batch":               append(pgtest.Join(pgtest.Parse("", "SELECT 1")), frame('z', 4, "")...),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.client()
			r.forgetAll()
			must(t, c.SendRaw(send))
			got := strings.ReplaceAll(c.end(), " pgweir)", ")")
			want := "E(FATAL 08P01)"
			if silent[name] {
				want = ""
			}
			equal(t, "answer", got, want)
			for _, n := range r.nodes {
				if strings.Contains(n.got(), "Q ") && !strings.Contains(n.got(), "DISCARD") {
					t.Errorf("%s got %s", n.name, n.got())
				}
			}
		})
	}
}

// TestSlowClients: who does not finish the login in time is sent away, and who comes when all places
// are taken.
func TestSlowClients(t *testing.T) {
	r := newRig(t, withConfig(func(c *Config) { c.LoginTimeout = 150 * time.Millisecond }))
	for name, send := range map[string][]byte{
		"silent": nil, "half a packet": {0, 0, 0}, "half a startup": startupPacket(version, "user\x00alice\x00\x00")[:12],
		"no password": startupPacket(version, "user\x00alice\x00database\x00app\x00\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", r.addr)
			must(t, err)
			defer conn.Close()
			_, err = conn.Write(send)
			must(t, err)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Error(err)
			}
		})
	}
	full := newRig(t, withConfig(func(c *Config) { c.MaxClients = 1 }))
	c := full.client()
	equal(t, "one too many", loginError(t, pgtest.ClientConfig{Addr: full.addr, User: "alice", Database: "app", Password: "secret"}), "E(FATAL 53300 pgweir)")
	equal(t, "the first", strings.HasSuffix(c.query("SELECT 1"), "Z(I)"), true)
}

// TestSlowNodes: a login that waits for a node ends when its time is over, whatever it waits for, and leaves no connection
// behind that is in the middle of something.
func TestSlowNodes(t *testing.T) {
	hang := func(b *backendPG) error {
		_, err := b.Read() // until the proxy gives up
		return err
	}
	for name, slow := range map[string]func(r *rig){
		"its login":          func(r *rig) { r.p().onStartup(hang) },
		"its first settings": func(r *rig) { r.p().on(baseQuery(), hang) },
		"there is none": func(r *rig) {
			r.primary = nil
			for _, n := range r.nodes {
				r.change(n, func(v *health.Node) { v.State = health.StateDown })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, alone, withConfig(func(c *Config) { c.LoginTimeout = time.Second }))
			slow(r)
			login := pgtest.ClientConfig{Addr: r.addr, User: "alice", Database: "app", Password: "secret", Timeout: 8 * time.Second}
			began := time.Now()
			equal(t, "the login", loginError(t, login), "E(FATAL 57P03 pgweir)")
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
			await(t, "the node's connection to end", func() bool { return r.p().live() == 0 })
			r.p().onStartup(nil)
			r.p().on(baseQuery(), nil)
			r.primary = r.p()
			r.change(r.p(), func(v *health.Node) { v.State = health.StateUp })
			equal(t, "the next client", r.client().query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
		})
	}
}

// TestHostileNode: a node that breaks the protocol loses its connection; the client hears an error and
// stays, or the read is run elsewhere.
func TestHostileNode(t *testing.T) {
	for name, raw := range map[string][]byte{
		"an unknown type":        frame('@', 4, ""),
		"length 0":               frame('C', 0, ""),
		"length 2³¹":             frame('D', 1<<31, ""),
		"a tag of a megabyte":    frame('C', 1<<20, strings.Repeat("x", 70_000)),
		"an answer nobody asked": pgtest.BindComplete().Bytes(),
		"ready twice":            pgtest.Join(pgtest.CommandComplete("INSERT 0 1"), pgtest.ReadyForQuery('X')),
		"an error without end":   frame('E', 12, "SERROR\x00C"),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withoutB)
			c := r.client()
			hostile := func(b *backendPG) error {
				if err := b.SendRaw(raw); err != nil {
					return err
				}
				return b.Swallow()
			}
			r.p().on("INSERT INTO t VALUES (1)", hostile)
			got := c.query("INSERT INTO t VALUES (1)")
			if !strings.HasSuffix(got, "E(ERROR 08007 pgweir) Z(I)") {
				t.Errorf("a write: %s", got)
			}
			r.a().on("SELECT 1", hostile)
			got = c.query("SELECT 1")
			if !strings.HasSuffix(got, "D(primary) C(SELECT 1) Z(I)") && !strings.HasSuffix(got, "E(ERROR 40001 pgweir) Z(I)") {
				t.Errorf("a read: %s", got)
			}
			equal(t, "goes on", c.query("INSERT INTO t VALUES (2)"), "C(INSERT 0 1) Z(I)")
		})
	}
}

// TestLongPipelines: a client that sends long before it reads, and a long message in the middle.
func TestLongPipelines(t *testing.T) {
	r := newRig(t)
	c := r.client()
	const n = 10_000
	var ms []pgtest.Message
	for range n {
		ms = append(ms, pgtest.Parse("", "SELECT 1"), pgtest.Bind("", ""), pgtest.Execute("", 0))
	}
	ms = append(ms, pgtest.Sync())
	must(t, c.Send(ms...))
	got, err := c.ReadUntilReady(1)
	must(t, err)
	equal(t, "answers", len(got), 4*n+1)
	long := "SELECT '" + strings.Repeat("x", maxText) + "'"
	equal(t, "a long query", c.query(long), "T D(primary) C(SELECT 1) Z(I)")
	c.send(pgtest.Parse("", "SELECT 1"), pgtest.Bind("", "", strings.Repeat("x", 300_000)), pgtest.Execute("", 0), pgtest.Sync())
	equal(t, "a long Bind", c.ready(1), "1 2 D(primary) C(SELECT 1) Z(I)")
	r.p().on("SELECT 2", func(b *backendPG) error {
		b.say(pgtest.RowDescription("v"), pgtest.DataRow(strings.Repeat("y", 3_000_000)), pgtest.CommandComplete("SELECT 1"))
		return nil
	})
	c.send(pgtest.Query("/* pgweir: primary */ SELECT 2"))
	c.ready(1)
	equal(t, "goes on", c.query("INSERT INTO t VALUES (1)"), "C(INSERT 0 1) Z(I)")
}

// TestLeaving: a client that says Terminate or just goes takes nothing along; its connection is wiped
// before somebody else gets it.
func TestLeaving(t *testing.T) {
	r := newRig(t, withoutB)
	c := r.client()
	c.query("SET work_mem TO '8MB'")
	r.forgetAll()
	c.send(pgtest.Query("INSERT INTO t VALUES (1)"), pgtest.Terminate())
	equal(t, "the answer before the end", c.end(), "C(INSERT 0 1) Z(I)")
	await(t, "the reset", func() bool { return r.p().ran("DISCARD ALL") == 1 })
	next := r.client()
	r.forgetAll()
	next.query("INSERT INTO t VALUES (2)")
	equal(t, "nothing is left", r.p().got(), "Q INSERT INTO t VALUES (2)")
	next.query("BEGIN")
	next.query("INSERT INTO t VALUES (3)")
	must(t, next.CloseHard())
	await(t, "the transaction's connection is closed", func() bool { return r.p().live() == 0 })
	equal(t, "not reset for another", r.p().ran("DISCARD ALL"), 0)
}
