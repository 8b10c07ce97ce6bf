package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// fuzzSecret is a verifier that costs no key derivation.
func fuzzSecret() (Secret, Keys) {
	clientKey, serverKey := bytes.Repeat([]byte{1}, keyLen), bytes.Repeat([]byte{2}, keyLen)
	v := verifier{salt: []byte("salt"), iterations: 4096, storedKey: hash(clientKey), serverKey: serverKey}
	return Secret{kind: secretSCRAM, verifier: v}, Keys{ClientKey: clientKey, ServerKey: serverKey, StoredKey: v.storedKey, Salt: v.salt, Iterations: 4096}
}

// FuzzServerExchange gives a ServerExchange two messages. In the second NONCE stands for the
// nonce of the exchange and PROOF for the right proof: without that nobody comes in.
func FuzzServerExchange(f *testing.F) {
	for _, first := range []string{"n,,n=,r=abc", "y,,n=,r=abc", "p=tls-server-end-point,,n=,r=abc", "n,a=x,n=,r=abc", "", "n,,n=bob,r=a,x=y"} {
		for _, mechanism := range []string{mechanismSCRAM, mechanismSCRAMPlus} {
			f.Add(uint8(0), initial(mechanism, first), []byte("c=biws,r=NONCE,p=PROOF"))
			f.Add(uint8(1), initial(mechanism, first), []byte("c="+encoding.EncodeToString([]byte("p=tls-server-end-point,,bound"))+",r=NONCE,p=PROOF"))
		}
	}
	f.Add(uint8(2), []byte("md5"+strings.Repeat("0", 32)+"\x00"), []byte{})
	f.Add(uint8(3), initial(mechanismSCRAM, "n,,n=,r="), []byte("c=biws,r=NONCE,x=y,p=PROOF"))
	f.Add(uint8(0), []byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"), []byte("n,,n=,r=abc"))
	seed := NewSeed()
	good, keys := fuzzSecret()
	f.Fuzz(func(t *testing.T, kind uint8, first, second []byte) {
		secret, opts := good, ServerOptions{Seed: seed}
		switch kind % 4 {
		case 1:
			opts.TLS, opts.EndPoint = true, []byte("bound")
		case 2:
			secret = Secret{kind: secretMD5, text: md5Secret("alice", "secret")}
		case 3:
			secret = Secret{}
		}
		x := NewServerExchange("alice", secret, opts)
		x.Begin(nil)
		out, done, err := x.Step([]byte("kept"), first)
		check(t, x, out, done, err)
		if done {
			t.Fatal("in after one message")
		}
		final := strings.ReplaceAll(string(second), "NONCE", x.nonce)
		proved := false
		if head, _, ok := strings.Cut(final, ",p=PROOF"); ok && x.first != "" {
			proof := xor(keys.ClientKey, mac(keys.StoredKey, x.bare, ",", x.first, ",", head))
			final = strings.Replace(final, ",p=PROOF", ",p="+encoding.EncodeToString(proof), 1)
			proved = true
		}
		out, done, err = x.Step([]byte("kept"), []byte(final))
		check(t, x, out, done, err)
		if done && (!proved || secret.IsZero()) {
			t.Fatalf("let in with %q, %q", first, final)
		}
		if _, done, err := x.Step(nil, []byte(final)); done && err != nil {
			t.Fatal("done and failed")
		}
	})
}

// check is what holds after every step of a ServerExchange.
func check(t *testing.T, x *ServerExchange, out []byte, done bool, err error) {
	t.Helper()
	rest, ok := bytes.CutPrefix(out, []byte("kept"))
	if !ok {
		t.Fatal("what stood in front was changed")
	}
	var e *Error
	if err != nil && (!errors.As(err, &e) || len(e.SQLState) != 5 || e.Message == "" || done || len(rest) != 0) {
		t.Fatalf("%v with %q", err, rest)
	}
	if len(rest) > 0 && (rest[0] != 'R' || int(binary.BigEndian.Uint32(rest[1:5])) != len(rest)-1) {
		t.Fatalf("malformed answer %q", rest)
	}
	if done == x.Keys().Equal(Keys{}) {
		t.Fatal("keys and success do not go together")
	}
}

// FuzzClientExchange gives a ClientExchange three messages of a node. In them NONCE stands for our
// nonce. A node that does not know the verifier never gets us to believe it.
func FuzzClientExchange(f *testing.F) {
	request := []byte("\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00")
	final := []byte("\x00\x00\x00\x0cv=" + encoding.EncodeToString(make([]byte, keyLen)))
	for _, first := range []string{
		"r=NONCEx,s=c2FsdA==,i=4096", "r=NONCEx,s=c2FsdA==,i=2147483648", "r=x,s=c2FsdA==,i=1", "m=x,r=NONCEx", "e=other-error", "r=NONCEx,s=,i=1",
		"r=NONCEx,s=c2FsdA==,i=4096,x=y",
	} {
		f.Add(uint8(0), request, []byte("\x00\x00\x00\x0b"+first), final)
		f.Add(uint8(1), request, []byte("\x00\x00\x00\x0b"+first), final)
	}
	f.Add(uint8(2), []byte{0, 0, 0, 5, 1, 2, 3, 4}, []byte{0, 0, 0, 0}, []byte{})
	f.Add(uint8(2), []byte{0, 0, 0, 3}, []byte{0, 0, 0, 0}, []byte{})
	f.Add(uint8(0), []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0}, []byte{})
	_, keys := fuzzSecret()
	f.Fuzz(func(t *testing.T, kind uint8, first, second, third []byte) {
		opts, held := ClientOptions{}, keys
		switch kind % 4 {
		case 1:
			opts.TLS, opts.EndPoint = true, []byte("bound")
		case 2:
			held = Keys{MD5: md5Secret("alice", "secret")}
		case 3:
			held = Keys{}
		}
		x := NewClientExchange("alice", held, opts)
		scram := false
		for _, m := range [][]byte{first, second, third, {0, 0, 0, 0}} {
			m = bytes.ReplaceAll(m, []byte("NONCE"), []byte(x.nonce))
			out, err := x.Step([]byte("kept"), m)
			rest, ok := bytes.CutPrefix(out, []byte("kept"))
			if !ok || err != nil && (len(rest) != 0 || x.Done()) {
				t.Fatalf("%v with %q", err, out)
			}
			if len(rest) > 0 && (rest[0] != 'p' || int(binary.BigEndian.Uint32(rest[1:5])) != len(rest)-1) {
				t.Fatalf("malformed answer %q", rest)
			}
			scram = scram || bytes.HasPrefix(rest[min(5, len(rest)):], []byte(mechanismSCRAM))
			if err != nil {
				return
			}
		}
		if scram && x.Done() {
			t.Fatal("a node that proved nothing was believed")
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	for _, s := range []string{"", "md5", "md5" + strings.Repeat("a", 32), "SCRAM-SHA-256$4096:c2FsdA==$" +
		encoding.EncodeToString(make([]byte, keyLen)) + ":" + encoding.EncodeToString(make([]byte, keyLen)), "SCRAM-SHA-256$", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		secret, err := ParseSecret(s)
		if err != nil && !secret.IsZero() || err == nil && secret.IsZero() != (s == "") {
			t.Fatalf("%q: %v %v", s, secret.kind, err)
		}
		if v := secret.verifier; secret.kind == secretSCRAM && (v.iterations < 1 || len(v.salt) == 0 || len(v.storedKey) != keyLen || len(v.serverKey) != keyLen) {
			t.Fatalf("%q: an incomplete verifier", s)
		}
	})
}

func FuzzParseUserlist(f *testing.F) {
	for _, s := range []string{"", "; x", `"a" "b"`, "\"a\"\n\"b\"\n", `"a""" "b" x`, `"a`, `"a" "`, "\x00", `"" ""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		users, err := parseUserlist("f", s)
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Fatal(err)
		}
		for name := range users {
			if len(name) > maxUserField || strings.Contains(name, "\x00") {
				t.Fatalf("user %q", name)
			}
		}
	})
}

func FuzzSASLprep(f *testing.F) {
	for _, s := range []string{"", "a", "\u2168", "\u0627\u0628", "\xff", "a\u200b", "\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := saslprep(s)
		if once == "" != (s == "") {
			t.Fatalf("%q became %q", s, once)
		}
		if isASCII(s) && once != s {
			t.Fatalf("%q became %q", s, once)
		}
	})
}
