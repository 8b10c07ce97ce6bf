package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// body splits one message into its type and body, and fails on anything but exactly one.
func body(t *testing.T, msg []byte, typ byte) []byte {
	t.Helper()
	if len(msg) < 5 || msg[0] != typ || int(binary.BigEndian.Uint32(msg[1:])) != len(msg)-1 {
		t.Fatalf("not exactly one message of type %q: %q", typ, msg)
	}
	return msg[5:]
}

// initial is the body of a SASLInitialResponse.
func initial(mechanism, data string) []byte {
	b := append([]byte(mechanism), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// verifierFor is a verifier as PostgreSQL stores it, made by the oracle.
func verifierFor(t *testing.T, user, password string, iterations int) string {
	t.Helper()
	c, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	creds, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: iterations})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encoding.EncodeToString([]byte("0123456789abcdef")),
		encoding.EncodeToString(creds.StoredKey), encoding.EncodeToString(creds.ServerKey))
}

// parse is ParseSecret for a secret that must be right.
func parse(t *testing.T, s string) Secret {
	t.Helper()
	secret, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestServerAgainstOracleClient(t *testing.T) {
	seed := NewSeed()
	for _, password := range []string{"secret", "I\u00adX", "\u2168", "p\u00e5ssw\u00f6rd", "with space", "пароль"} {
		for name, secret := range map[string]Secret{
			"verifier": parse(t, verifierFor(t, "", password, 4096)),
			"plain":    Password(password),
		} {
			x := NewServerExchange("alice", secret, ServerOptions{Seed: seed})
			c, err := scram.SHA256.NewClient("", password, "")
			if err != nil {
				t.Fatal(err)
			}
			conv := c.NewConversation()
			if got := body(t, x.Begin(nil), 'R'); string(got) != "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" {
				t.Fatalf("%s: first message %q", name, got)
			}
			first, err := conv.Step("")
			if err != nil {
				t.Fatal(err)
			}
			out, done, err := x.Step(nil, initial("SCRAM-SHA-256", first))
			if err != nil || done {
				t.Fatalf("%s %q: %v %v", name, password, done, err)
			}
			final, err := conv.Step(string(body(t, out, 'R')[4:]))
			if err != nil {
				t.Fatal(err)
			}
			out, done, err = x.Step(nil, []byte(final))
			if err != nil || !done {
				t.Fatalf("%s %q: %v %v", name, password, done, err)
			}
			if _, err := conv.Step(string(body(t, out, 'R')[4:])); err != nil || !conv.Valid() {
				t.Fatalf("%s %q: the client did not take our signature: %v", name, password, err)
			}
			login(t, x.Keys(), verifierFor(t, "", password, 4096))
		}
	}
}

// login runs our client against the oracle's server.
func login(t *testing.T, keys Keys, stored string) {
	t.Helper()
	v := parse(t, stored).verifier
	s, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(v.salt), Iters: v.iterations},
			StoredKey:  v.storedKey, ServerKey: v.serverKey,
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	conv := s.NewConversation()
	x := NewClientExchange("alice", keys, ClientOptions{})
	out, err := x.Step(nil, []byte("\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	b := body(t, out, 'p')
	mech, rest, _ := bytes.Cut(b, []byte{0})
	if string(mech) != "SCRAM-SHA-256" {
		t.Fatalf("mechanism %q", mech)
	}
	challenge, err := conv.Step(string(rest[4:]))
	if err != nil {
		t.Fatal(err)
	}
	out, err = x.Step(nil, []byte("\x00\x00\x00\x0b"+challenge))
	if err != nil {
		t.Fatal(err)
	}
	final, err := conv.Step(string(body(t, out, 'p')))
	if err != nil || !conv.Valid() {
		t.Fatalf("the server did not take our proof: %v", err)
	}
	if _, err := x.Step(nil, []byte("\x00\x00\x00\x0c"+final)); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Step(nil, []byte{0, 0, 0, 0}); err != nil || !x.Done() {
		t.Fatalf("not done: %v", err)
	}
}

func TestClientAgainstOracleServer(t *testing.T) {
	login(t, Keys{Password: "secret"}, verifierFor(t, "", "secret", 4096))
	login(t, Keys{Password: "\u2168"}, verifierFor(t, "", "IX", 777))
}

// exchange runs our client against our server and returns both ends.
func exchange(t *testing.T, server ServerOptions, client ClientOptions, secret Secret, keys Keys) (*ServerExchange, *ClientExchange, error) {
	t.Helper()
	s := NewServerExchange("alice", secret, server)
	c := NewClientExchange("alice", keys, client)
	msg := s.Begin(nil)
	for {
		answer, err := c.Step(nil, body(t, msg, 'R'))
		if err != nil {
			return s, c, err
		}
		if len(answer) == 0 {
			break
		}
		var done bool
		if msg, done, err = s.Step(nil, body(t, answer, 'p')); err != nil {
			return s, c, err
		}
		if done && len(msg) == 0 {
			break
		}
	}
	_, err := c.Step(nil, []byte{0, 0, 0, 0})
	return s, c, err
}

func TestChannelBinding(t *testing.T) {
	secret := Password("secret")
	seed := NewSeed()
	end, other := []byte("hash of the certificate"), []byte("hash of another certificate")
	for _, tc := range []struct {
		name   string
		server []byte
		client []byte
		want   string // "" means success
	}{
		{"both", end, end, ""},
		{"client cannot", end, nil, ""},
		{"server cannot", nil, end, ""},
		{"man in the middle", end, other, "SCRAM channel binding check failed"},
	} {
		_, c, err := exchange(t, ServerOptions{Seed: seed, TLS: true, EndPoint: tc.server},
			ClientOptions{TLS: true, EndPoint: tc.client}, secret, Keys{Password: "secret"})
		if tc.want == "" {
			if err != nil || !c.Done() {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Message != tc.want || e.SQLState != "28000" {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestDowngradeByStrippingTheMechanism(t *testing.T) {
	// The attacker removes SCRAM-SHA-256-PLUS from the server's list: the client's "y" tells.
	s := NewServerExchange("alice", Password("secret"), ServerOptions{Seed: NewSeed(), TLS: true, EndPoint: []byte("x")})
	s.Begin(nil)
	_, _, err := s.Step(nil, initial("SCRAM-SHA-256", "y,,n=,r=abc"))
	var e *Error
	if !errors.As(err, &e) || e.SQLState != "28000" || e.Message != "SCRAM channel binding negotiation error" {
		t.Fatal(err)
	}
}

func TestWrongPasswordAndUnknownUserLookAlike(t *testing.T) {
	seed := NewSeed()
	salts := map[string]bool{}
	for range 2 {
		for name, secret := range map[string]Secret{"wrong": Password("secret"), "unknown": {}} {
			s := NewServerExchange("alice", secret, ServerOptions{Seed: seed})
			s.Begin(nil)
			out, _, err := s.Step(nil, initial("SCRAM-SHA-256", "n,,n=,r=abc"))
			if err != nil {
				t.Fatal(err)
			}
			first := string(body(t, out, 'R')[4:])
			salts[first[strings.Index(first, ",s="):]] = true
			nonce := strings.TrimPrefix(strings.Split(first, ",")[0], "r=")
			_, _, err = s.Step(nil, []byte("c=biws,r="+nonce+",p="+encoding.EncodeToString(make([]byte, keyLen))))
			var e *Error
			if !errors.As(err, &e) || !e.Denied() || e.Message != `password authentication failed for user "alice"` || e.Detail != "" {
				t.Fatalf("%s: %v", name, err)
			}
			if k := s.Keys(); !k.Equal(Keys{}) {
				t.Fatalf("%s: keys after a denial", name)
			}
			if _, _, err := s.Step(nil, []byte("again")); err == nil {
				t.Fatalf("%s: a step after the end", name)
			}
		}
	}
	if len(salts) != 1 {
		t.Fatalf("salts and iterations differ: %v", salts)
	}
}

func TestMockIterationsFollowReal(t *testing.T) {
	seed := NewSeed()
	shown := func(secret Secret) string {
		s := NewServerExchange("alice", secret, ServerOptions{Seed: seed})
		s.Begin(nil)
		out, _, err := s.Step(nil, initial("SCRAM-SHA-256", "n,,n=,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		return string(out[strings.LastIndex(string(out), ",i="):])
	}
	if got := shown(Secret{}); got != ",i=4096" {
		t.Error(got)
	}
	shown(parse(t, strings.Replace(verifierFor(t, "", "x", 4096), "4096", "10000", 1)))
	shown(parse(t, verifierFor(t, "", "x", 4096)))
	if got := shown(Secret{}); got != ",i=10000" {
		t.Error(got)
	}
}
