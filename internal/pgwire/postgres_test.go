package pgwire_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgweir/internal/localpg"
	"pgweir/internal/pgtest"
	"pgweir/internal/pgwire"
)

// server is a real PostgreSQL that lets everybody in.
func server(t *testing.T) string {
	t.Helper()
	bins, err := localpg.Find(0)
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	pg, err := localpg.New(t.Context(), localpg.Config{Bins: bins, Auth: "trust"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	return pg.Nodes[0].Addr()
}

// ask sends a startup packet and closes the client's half; what comes back is everything.
func ask(t *testing.T, addr string, packet []byte) []pgtest.Message {
	t.Helper()
	c, err := pgtest.Dial(pgtest.ClientConfig{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseHard()
	if err := errors.Join(c.SendRaw(packet), c.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	got, err := c.ReadToEnd()
	if err != nil {
		t.Fatalf("%q: %v", packet, err)
	}
	return got
}

// outcome is the server's answer in one line: its error or "in".
func outcome(got []pgtest.Message) string {
	switch e := pgtest.FirstError(got); {
	case e != nil:
		return e.Field('C') + " " + e.Field('M') + " / " + e.Field('H')
	case len(got) == 0:
		return "silence"
	}
	return "in"
}

// mine is the same of what this package says.
func mine(err error) string {
	var pe *pgwire.ProtocolError
	switch {
	case err == nil:
		return "in"
	case !errors.As(err, &pe):
		return err.Error()
	case pe.LogOnly:
		return "silence"
	}
	return pe.Code + " " + pe.Message + " / " + pe.Hint
}

// TestOptionsAsPostgres reads many options texts with a real server and with ParseOptions: they
// refuse the same ones with the same words, and take the same settings out of the others.
func TestOptionsAsPostgres(t *testing.T) {
	addr := server(t)
	for _, text := range optionTexts() {
		got := ask(t, addr, pgwire.AppendStartup(nil, pgwire.Version30, []pgwire.Param{
			{Name: "user", Value: "postgres"}, {Name: "options", Value: text},
		}))
		theirs := outcome(got)
		o, err := pgwire.ParseOptions(text)
		if err != nil {
			if ours := mine(err); ours != theirs && theirs[:5] == pgwire.CodeSyntaxError {
				t.Errorf("options %q: PostgreSQL says %s, ParseOptions %s", text, theirs, ours)
			}
			if theirs == "in" {
				t.Errorf("options %q: PostgreSQL takes it, ParseOptions says %v", text, err)
			}
			continue
		}
		if strings.HasPrefix(theirs, pgwire.CodeSyntaxError) && !o.Opaque {
			t.Errorf("options %q: PostgreSQL says %s, ParseOptions takes it", text, theirs)
		}
		if theirs == "in" {
			checkSettings(t, addr, text, o.Settings)
		}
	}
}

// optionTexts is every sequence of up to three of some words, and some more.
func optionTexts() []string {
	words := []string{"-c", "-ca.b=1", "--a-b.c=2", "a.b=3", "-e", "-xy", "--", "-", `\`, `a.c=\ 4\\`, "-S", "--x"}
	texts := []string{"", " ", "-d5", "-fs", "-fz", "-tpa", "-tzz", "-B", "-pq", "-es", "-:", "-e:", "-c =x", "-c=", "--=", "-W1", "\t-c\v\fa.b=5\r\n"}
	for _, a := range words {
		texts = append(texts, a)
		for _, b := range words {
			texts = append(texts, a+" "+b)
		}
	}
	for i := range 40 { // a sample of the longer ones, always the same
		texts = append(texts, words[i*7%12]+"  "+words[i*5/3%12]+" "+words[i*11/7%12])
	}
	return texts
}

// checkSettings asks a session that was started with these options for the value of each
// setting with a dot; the last one of a name counts.
func checkSettings(t *testing.T, addr, text string, settings []pgwire.Param) {
	t.Helper()
	want := map[string]string{}
	for _, s := range settings {
		if strings.Contains(s.Name, ".") {
			want[s.Name] = s.Value
		}
	}
	if len(want) == 0 {
		return
	}
	c, err := pgtest.Connect(pgtest.ClientConfig{Addr: addr, User: "postgres", Params: []string{"options", text}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseHard()
	for name, value := range want {
		got, err := c.Query(fmt.Sprintf("select current_setting('%s')", name))
		if err != nil {
			t.Fatal(err)
		}
		if rows := pgtest.Rows(got); len(rows) != 1 || rows[0][0] != value {
			t.Errorf("options %q: %s is %q on the server, %q here", text, name, rows, value)
		}
	}
}

// TestStartupAsPostgres sends startup packets of all kinds to a real server and to ParseStartup.
func TestStartupAsPostgres(t *testing.T) {
	addr := server(t)
	newest := strings.NewReplacer("3.0 to 3.2", "3.x", "3.0 to 3.0", "3.x")
	const who = "user\x00postgres\x00database\x00postgres\x00"
	for _, c := range []struct {
		version uint32
		body    string
	}{
		{pgwire.Version30, who + "\x00"},
		{pgwire.Version32, who + "\x00"},
		{3<<16 | 9999, who + "\x00"},
		{4 << 16, who + "\x00"},
		{1234<<16 | 5681, ""},
		{pgwire.Version30, ""},
		{pgwire.Version30, "\x00"},
		{pgwire.Version30, who},
		{pgwire.Version30, who + "x"},
		{pgwire.Version30, who + "xy"},
		{pgwire.Version30, who + "a\x00"},
		{pgwire.Version30, who + "application_name\x00b"},
		{pgwire.Version30, who + "application_name\x00b\x00"},
		{pgwire.Version30, who + "\x00\x00"},
		{pgwire.Version30, who + "\x00x\x00\x00"},
		{pgwire.Version30, "user\x00\x00database\x00postgres\x00\x00"},
		{pgwire.Version30, "user\x00postgres\x00\x00"},
		{pgwire.Version30, "user\x00nobody\x00" + who + "\x00"},
		{pgwire.Version30, who + "_pq_.x\x00y\x00\x00"},
		{pgwire.Version30, who + "replication\x00maybe\x00\x00"},
		{pgwire.Version30, who + "replication\x00o\x00\x00"},
		{pgwire.Version30, who + "replication\x00\x00\x00"},
		{pgwire.Version30, who + "replication\x00FaL\x00\x00"},
		{pgwire.Version30, who + "replication\x00of\x00\x00"},
		{pgwire.Version30, who + "replication\x00database\x00\x00"},
		{pgwire.Version30, who + "application_name\x00" + strings.Repeat("x", 10_000-4-len(who)-18-1) + "\x00"},
	} {
		packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(c.body)))
		packet = append(binary.BigEndian.AppendUint32(packet, c.version), c.body...)
		theirs := outcome(ask(t, addr, packet))
		_, err := pgwire.ParseStartup(packet)
		// The server names the newest minor version that it speaks itself.
		if ours := mine(err); newest.Replace(ours) != newest.Replace(theirs) {
			t.Errorf("version %#x, %.100q: PostgreSQL %s, ParseStartup %s", c.version, c.body, theirs, ours)
		}
	}
	checkProtocol2(t, addr, newest)
}

// checkProtocol2 compares the answer to a client of protocol 2, which is in a form of its own.
func checkProtocol2(t *testing.T, addr string, newest *strings.Replacer) {
	t.Helper()
	packet := pgwire.AppendStartup(nil, 2<<16, nil)
	c, err := pgtest.Dial(pgtest.ClientConfig{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseHard()
	if err := c.SendRaw(packet); err != nil {
		t.Fatal(err)
	}
	theirs, err := io.ReadAll(c.Conn())
	if err != nil {
		t.Fatal(err)
	}
	var pe *pgwire.ProtocolError
	if _, err := pgwire.ParseStartup(packet); !errors.As(err, &pe) {
		t.Fatal(err)
	}
	ours := pgwire.AppendErrorV2(nil, "FATAL", pe.Message)
	if newest.Replace(string(ours)) != newest.Replace(string(theirs)) {
		t.Errorf("protocol 2: PostgreSQL %q, pgwire %q", theirs, ours)
	}
}
