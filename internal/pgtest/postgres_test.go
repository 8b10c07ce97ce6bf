package pgtest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"pgweir/internal/localpg"
)

// TestRealServer shows the client at work with PostgreSQL: every way in, TLS with channel
// binding, COPY, cancel; everything the server says is checked by the second codec.
func TestRealServer(t *testing.T) {
	bins, err := localpg.Find(0)
	if errors.Is(err, localpg.ErrNotFound) {
		t.Skip(err)
	}
	must(t, err)
	serverTLS, clientTLS := certificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(serverTLS.Certificates[0].PrivateKey)
	must(t, err)
	pg, err := localpg.New(t.Context(), localpg.Config{
		Bins: bins, Password: "geheim",
		HBA: []string{
			"host all trusted 127.0.0.1/32 trust",
			"host all plain 127.0.0.1/32 password",
		},
		Settings: map[string]string{"ssl": "on", "ssl_cert_file": "test.crt", "ssl_key_file": "test.key"},
		Files: map[string][]byte{
			"test.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serverTLS.Certificates[0].Certificate[0]}),
			"test.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		},
	})
	must(t, err)
	defer pg.Close()
	must(t, pg.Exec(t.Context(), "postgres", "CREATE ROLE trusted LOGIN; CREATE ROLE plain LOGIN PASSWORD 'offen'; CREATE TABLE t (i int)"))
	base := ClientConfig{Addr: pg.Nodes[0].Addr(), Database: "postgres", Check: checkNode}

	for _, c := range []struct {
		user, password string
		tls            bool
	}{
		{"trusted", "", false},
		{"plain", "offen", false},
		{"postgres", "geheim", false},
		{"postgres", "geheim", true},
	} {
		cfg := base
		cfg.User, cfg.Password = c.user, c.password
		if c.tls {
			cfg.TLS = clientTLS
		}
		client, err := Dial(cfg)
		must(t, err)
		got, err := client.Login()
		must(t, err)
		plus := strings.Contains(Transcript(got), "SCRAM-SHA-256-PLUS")
		if plus != c.tls || client.PID == 0 || len(client.Secret) != 4 || client.Status["server_version"] == "" {
			t.Errorf("login of %s (TLS %v):\n%s", c.user, c.tls, Transcript(got))
		}
		must(t, client.Close())
	}

	cfg := base
	cfg.User, cfg.Password = "postgres", "falsch"
	var refused *ServerError
	if _, err := Connect(cfg); !errors.As(err, &refused) || refused.Field('C') != "28P01" {
		t.Errorf("wrong password: %v", err)
	}
	cfg.Password = "geheim"
	client, err := Connect(cfg)
	must(t, err)
	for _, step := range []struct {
		send []Message
		want string
	}{
		{[]Message{Query("select 1 as a, null as b, '' as c")}, "type 23"},
		{[]Message{Query("select 1/0")}, `C="22012" M="division by zero"`},
		{[]Message{Query("")}, "EmptyQueryResponse"},
		{[]Message{Query("listen c; notify c, 'p'")}, `NotificationResponse pid=* "c" "p"`},
		{Extended("select $1::int + 1", "41"), `DataRow "42"`},
		{Extended("select $1::text", nil), "DataRow NULL"},
		{[]Message{Parse("s", "select $1::int", 23), DescribeStatement("s"), CloseStatement("s"), Sync()}, "ParameterDescription 23"},
		{[]Message{Parse("", "select generate_series(1, 3)"), Bind("", ""), Execute("", 2), Execute("", 2), Sync()}, "PortalSuspended"},
		{[]Message{Parse("", "select 7::int4"), BindBinary("", ""), Execute("", 0), Sync()}, `DataRow "\x00\x00\x00\a"`},
		{[]Message{Query("copy t from stdin"), CopyData("1\n2\n"), CopyDone()}, `CommandComplete "COPY 2"`},
		{[]Message{Query("copy t from stdin"), CopyFail("because")}, `M="COPY from stdin failed: because"`},
		{[]Message{Query("copy t to stdout")}, `CopyData "2\n"`},
		{[]Message{Query("do $$begin raise notice 'n'; end$$")}, `NoticeResponse S="NOTICE" V="NOTICE" C="00000" M="n"`},
		{[]Message{Query("begin; commit; commit")}, `C="25P01"`},
	} {
		got, err := client.Exchange(step.send...)
		must(t, err)
		if lines := Transcript(got); !strings.Contains(lines, step.want) || strings.Contains(lines, "malformed") {
			t.Errorf("%q: want %s in\n%s", step.send[0].Body, step.want, lines)
		}
	}

	must(t, client.Send(Query("do $$begin raise notice 'running'; perform pg_sleep(60); end$$")))
	_, err = client.ReadUntilType('N')
	must(t, err)
	must(t, client.Cancel())
	got, err := client.ReadUntilReady(1)
	must(t, err)
	if e := FirstError(got); e == nil || e.Field('C') != "57014" {
		t.Errorf("cancelled: %s", Transcript(got))
	}
	must(t, client.SendRaw(bytes.Repeat([]byte("?"), 5)))
	rest, err := client.ReadToEnd()
	must(t, err)
	if e := FirstError(rest); e == nil || e.Field('C') != "08P01" || e.Field('S') != "FATAL" {
		t.Errorf("nonsense: %s", Transcript(rest))
	}
	must(t, client.CloseHard())
}
