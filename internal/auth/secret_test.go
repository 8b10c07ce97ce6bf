package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/xdg-go/stringprep"
)

func TestParseSecret(t *testing.T) {
	good := verifierFor(t, "", "x", 4096)
	for s, kind := range map[string]secretKind{
		"": secretNone, "secret": secretPlain, good: secretSCRAM,
		"md5" + strings.Repeat("a1", 16): secretMD5,
		"md5" + strings.Repeat("A1", 16): secretPlain,
		"md5" + strings.Repeat("a", 31):  secretPlain,
		"scram-sha-256$x":                secretPlain,
	} {
		got, err := ParseSecret(s)
		if err != nil || got.kind != kind {
			t.Errorf("%q: %v %v", s, got.kind, err)
		}
	}
	for _, s := range []string{
		"SCRAM-SHA-256$", "SCRAM-SHA-256$4096", strings.Replace(good, "4096", "0", 1),
		strings.Replace(good, "4096", "-1", 1), strings.Replace(good, "4096", "+1", 1),
		strings.Replace(good, "4096", "4294967296", 1), strings.Replace(good, ":", "::", 1), good + "x", good[:len(good)-4],
		"SCRAM-SHA-256$4096:$" + strings.SplitN(good, "$", 3)[2],
	} {
		if got, err := ParseSecret(s); err == nil {
			t.Errorf("%q is %v", s, got.kind)
		}
	}
}

func TestNothingIsShown(t *testing.T) {
	type outer struct {
		S  Secret
		K  Keys
		P  *Keys
		Ks []Keys
	}
	k := Keys{Password: "hunter2", MD5: "hunter2", ClientKey: []byte("hunter2"), ServerKey: []byte("hunter2"), Salt: []byte("hunter2")}
	o := outer{Password("hunter2"), k, &k, []Keys{k}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "o", o, "k", k, "s", o.S)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "o", o, "k", k, "s", o.S)
	asJSON, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %v", o, o, o, o, o, o, o, k, &k) + log.String() + string(asJSON)
	for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), "104 117 110", "aHVudGVyMg"} {
		if strings.Contains(all, form) {
			t.Errorf("%q is shown in %s", form, all)
		}
	}
}

func TestSASLprepAgainstOracle(t *testing.T) {
	for _, s := range []string{
		"I\u00adX", "user", "USER", "\u00aa", "\u2168", "a\u00a0b", "a\u200bb", "\u0627\u0031", "\u0627\u0031\u0628",
		"\u0627a\u0628", "a\u0007\u00e9", "\u0221", "\U0001F600", "e\u0301", "\u1E9B\u0323", "\u2000", "\ue000", "пароль",
		"\u00ad", "\u3000\u3000", "한글", "ﬁﬃ", "\u0340x", "ｆｕｌｌ", "\uFEFFx\u00e9",
	} {
		want, err := stringprep.SASLprep.Prepare(s)
		if err != nil || want == "" {
			want = s
		}
		switch {
		case isASCII(s):
			want = s
		case strings.ContainsRune(s, '\u200b'):
			want = "a b" // both in B.1 and C.1.2: PostgreSQL looks into C.1.2 first
		}
		if got := saslprep(s); got != want {
			t.Errorf("%+q: %+q, the oracle says %+q", s, got, want)
		}
	}
	for _, s := range []string{"a\x07b", "\xff\xfe", "", "plain"} {
		if got := saslprep(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}
