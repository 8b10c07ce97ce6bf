package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseUserlist(t *testing.T) {
	md5 := "md5" + strings.Repeat("0a", 16)
	scram := verifierFor(t, "", "x", 4096)
	text := "; comment\n" +
		"\n  \t\"alice\" \"secret\" ignored \"more\"\n" +
		"\"bob\"\"s\" \"pass\"\"word\"\"\"\n" +
		"\"carol\"\t\t\"" + md5 + "\"\r\n" +
		"\"dave\" \"" + scram + "\"\n" +
		"\"erin\"\n\"next line\"\n" + // PgBouncer reads on
		"\"frank\" \"\"\n" +
		"\"ü\" \"ä\"\n" +
		"\"alice\" \"later\"" // the last counts; no newline at the end
	users, err := parseUserlist("f", text)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Secret{
		"alice": {kind: secretPlain, text: "later"}, `bob"s`: {kind: secretPlain, text: `pass"word"`},
		"carol": {kind: secretMD5, text: md5}, "dave": parse(t, scram),
		"erin": {kind: secretPlain, text: "next line"}, "frank": {}, "ü": {kind: secretPlain, text: "ä"},
	}
	if len(users) != len(want) {
		t.Errorf("%d users, want %d", len(users), len(want))
	}
	for name, w := range want {
		if got := users[name]; got.kind != w.kind || got.text != w.text || !bytes.Equal(got.verifier.storedKey, w.verifier.storedKey) {
			t.Errorf("%s: kind %d text %q", name, got.kind, got.text)
		}
	}
}

func TestParseUserlistErrors(t *testing.T) {
	for text, want := range map[string]string{
		"\nalice secret\n":                            `f:2: expected a user name in double quotes, or ";" for a comment`,
		"\n\n\"alice":                                 "f:3: the user name has no closing double quote",
		"\"a\" \"b\"\n\"alice\" secret":               "f:2: expected a secret in double quotes",
		"\"alice\" \"secret":                          "f:1: the secret has no closing double quote",
		"\"alice\" \"sec\x00ret\"":                    "f:1: a byte of value 0 in the secret",
		"\"alice\" \"SCRAM-SHA-256$x\"\n":             `f:1: user "alice": secret begins`,
		"\"" + strings.Repeat("a", 128) + "\" \"\"":   "f:1: user name of more than 127 bytes",
		"\"a\" \"" + strings.Repeat("a", 2048) + "\"": "f:1: secret of more than 2047 bytes",
		"# comment":                                   "f:1: expected a user name",
	} {
		if _, err := parseUserlist("f", text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	_, err := parseUserlist("f", "\"a\" \"SCRAM-SHA-256$x\"\n\"b\" \"SCRAM-SHA-256$y\"\nz")
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 2 {
		t.Errorf("not all errors at once: %v", err)
	}
}

func TestUserlistFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "userlist.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has := func(u *Userlist, user, password string) bool {
		s, err := u.Lookup(context.Background(), user)
		if err != nil && !errors.Is(err, ErrNoUser) {
			t.Fatal(err)
		}
		return err == nil && s.text == password
	}
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	if _, err := NewUserlist(path, log); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	write(`"a" "1"`)
	u, err := NewUserlist(path, log)
	if err != nil || !has(u, "a", "1") || has(u, "b", "1") || u.Len() != 1 {
		t.Fatal(err)
	}
	first, _ := u.Lookup(context.Background(), "a")
	for i := range 200 { // same size, mostly within one tick of the file system's clock
		want := fmt.Sprint(i % 10)
		write(`"a" "` + want + `"`)
		if !has(u, "a", want) {
			t.Fatalf("change %d not seen", i)
		}
	}
	write(`"a" "1"` + "\n" + `"b" "2"`)
	before, _ := u.Lookup(context.Background(), "b")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	after, _ := u.Lookup(context.Background(), "b")
	if before.derived != after.derived || before.derived == first.derived {
		t.Error("an unchanged password lost its derived keys")
	}
	write(`"a" "3`)
	if !has(u, "a", "1") || !has(u, "b", "2") {
		t.Error("a broken file emptied the list")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second look must not log again
		if !has(u, "a", "1") {
			t.Error("a missing file emptied the list")
		}
	}
	if n := strings.Count(logged.String(), "\n"); n != 2 {
		t.Errorf("log:\n%s", logged.String())
	}
	write(`"a" "4"`)
	if !has(u, "a", "4") {
		t.Error("the file that came back was not read")
	}
}

func TestChain(t *testing.T) {
	ctx := context.Background()
	down := errors.New("down")
	c := Chain{Static{"a": Password("1"), "e": {}}, Static{"a": Password("2"), "b": Password("3")}, failing{down}}
	if s, err := c.Lookup(ctx, "a"); err != nil || s.text != "1" {
		t.Error(err)
	}
	if s, err := c.Lookup(ctx, "b"); err != nil || s.text != "3" {
		t.Error(err)
	}
	if _, err := c.Lookup(ctx, "e"); !errors.Is(err, down) {
		t.Error(err)
	}
	if _, err := c[:2].Lookup(ctx, "e"); !errors.Is(err, ErrNoUser) {
		t.Error(err)
	}
	blind := Chain{failing{ErrQueryRights}, Static{"a": Password("1")}}
	if s, err := blind.Lookup(ctx, "a"); err != nil || s.text != "1" {
		t.Error(err)
	}
	if _, err := blind.Lookup(ctx, "b"); !errors.Is(err, ErrNoUser) || !errors.Is(err, ErrQueryRights) {
		t.Error(err)
	}
	c.Forget("a")
}

// failing is a Source that cannot tell.
type failing struct{ err error }

func (f failing) Lookup(context.Context, string) (Secret, error) { return Secret{}, f.err }
