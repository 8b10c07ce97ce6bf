package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgweir/internal/pgtest"
)

// gate is a node that lets clients in by a ServerExchange and answers one query with nothing.
func gate(secrets Source, opts ServerOptions, failed func(error)) pgtest.Script {
	return func(c *pgtest.FakeConn) error {
		if err := c.Startup(); err != nil {
			return err
		}
		_, opts.TLS = c.Conn().(*tls.Conn)
		mine := opts
		if !opts.TLS {
			mine.EndPoint = nil
		}
		secret, err := secrets.Lookup(context.Background(), c.Param("user"))
		if err != nil && !errors.Is(err, ErrNoUser) {
			return err
		}
		x := NewServerExchange(c.Param("user"), secret, mine)
		out, done := x.Begin(nil), false
		for !done {
			if err := c.SendRaw(out); err != nil {
				return err
			}
			m, err := c.Read()
			if err != nil {
				return err
			}
			if out, done, err = x.Step(nil, m.Body); err != nil {
				var e *Error
				errors.As(err, &e)
				failed(err)
				return c.Send(pgtest.Error("FATAL", e.SQLState, e.Message))
			}
		}
		if x.Keys().Equal(Keys{}) {
			return errors.New("no keys")
		}
		if err := errors.Join(c.SendRaw(out), c.Ready()); err != nil {
			return err
		}
		return c.Serve(func(pgtest.Message) []pgtest.Message {
			return []pgtest.Message{pgtest.EmptyQueryResponse(), pgtest.ReadyForQuery('I')}
		})
	}
}

func TestLibpqIsLetIn(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip(err)
	}
	ca := pgtest.NewCA(t)
	cert := ca.TLS(ca.Issue("node", "127.0.0.1"))
	secrets := Static{
		"verifier": parse(t, verifierFor(t, "", "pass \u2168 word", 4096)), "plain": Password("pass \u2168 word"),
		"md5": parse(t, md5Secret("md5", "pass \u2168 word")),
	}
	n := pgtest.NewFakeTLSNode(t, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		gate(secrets, ServerOptions{Seed: NewSeed(), EndPoint: TLSServerEndPoint(cert.Leaf)}, func(error) {}))
	host, port, _ := strings.Cut(n.Addr(), ":")
	for _, tc := range []struct{ user, password, options, want string }{
		{"verifier", "pass \u2168 word", "sslmode=disable", ""},
		{"verifier", "pass \u2168 word", "sslmode=require channel_binding=require", ""},
		{"verifier", "pass \u2168 word", "sslmode=require channel_binding=disable", ""},
		{"verifier", "pass IX word", "sslmode=require channel_binding=prefer", ""},
		{"plain", "pass \u2168 word", "sslmode=disable", ""},
		{"plain", "pass \u2168 word", "sslmode=require channel_binding=require", ""},
		{"md5", "pass \u2168 word", "sslmode=disable", ""},
		{"md5", "wrong", "sslmode=disable", `password authentication failed for user "md5"`},
		{"plain", "wrong", "sslmode=require channel_binding=require", `password authentication failed for user "plain"`},
		{"verifier", "wrong", "sslmode=disable", `password authentication failed for user "verifier"`},
		{"nobody", "wrong", "sslmode=disable", `password authentication failed for user "nobody"`},
		{"verifier", "pass \u2168 word", "sslmode=disable channel_binding=require", "channel binding"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, psql, "-X", "-w", "-c", "", fmt.Sprintf("host=%s port=%s user=%s dbname=x %s", host, port, tc.user, tc.options))
		cmd.Env = append(os.Environ(), "PGPASSWORD="+tc.password, "LC_ALL=C.UTF-8", "PGCLIENTENCODING=UTF8")
		out, err := cmd.CombinedOutput()
		cancel()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(string(out), tc.want)) {
			t.Errorf("%+v: %v\n%s", tc, err, out)
		}
	}
}
