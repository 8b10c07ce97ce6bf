package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // PostgreSQL's md5 secrets are what they are
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
)

// DefaultIterations is what PostgreSQL hashes a new password with.
const DefaultIterations = 4096

// keyLen is the length in bytes of every key and signature of SCRAM-SHA-256.
const keyLen = sha256.Size

// saltLen is the length in bytes of the salts that PostgreSQL makes.
const saltLen = 16

// hidden is what every attempt to print a secret shows.
const hidden = "***"

// ErrSecret says that a secret begins as a SCRAM verifier and is none.
var ErrSecret = errors.New(`secret begins with "SCRAM-SHA-256$" but is no SCRAM verifier; ` +
	"expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> with base64 parts")

// secretKind is the form of a Secret.
type secretKind uint8

// The forms of a secret.
const (
	secretNone secretKind = iota
	secretSCRAM
	secretMD5
	secretPlain
)

// Secret is what is known of a user's password: a SCRAM verifier, PostgreSQL's md5 hash, or the
// password itself. The zero Secret belongs to nobody: every exchange with it fails. A Secret is
// immutable, may be copied, and never shows its content when printed or logged.
type Secret struct {
	kind     secretKind
	text     string // the md5 hash in lower case, or the password
	verifier verifier
	derived  *derived // only for a password
}

// verifier is the server's half of a SCRAM password (RFC 5802, section 3).
type verifier struct {
	salt       []byte
	iterations int
	storedKey  []byte
	serverKey  []byte
}

// derived remembers the verifier last computed from a password, so that a user of a
// configuration costs one key derivation and not one a login.
type derived struct {
	mu struct {
		sync.Mutex
		verifier
	}
}

// ParseSecret reads a secret as PostgreSQL's pg_authid.rolpassword and PgBouncer's userlist.txt
// hold it: "SCRAM-SHA-256$…", "md5" and 32 hexadecimal digits, and anything else is the password
// itself. An empty string is the zero Secret. The only error is ErrSecret.
func ParseSecret(s string) (Secret, error) {
	switch {
	case s == "":
		return Secret{}, nil
	case strings.HasPrefix(s, "SCRAM-SHA-256$"):
		v, ok := parseVerifier(strings.TrimPrefix(s, "SCRAM-SHA-256$"))
		if !ok {
			return Secret{}, ErrSecret
		}
		return Secret{kind: secretSCRAM, verifier: v}, nil
	case isMD5(s):
		return Secret{kind: secretMD5, text: s}, nil
	}
	return Password(s), nil
}

// Password is the secret of a user whose plaintext password is known, whatever it looks like.
// An empty password is the zero Secret.
func Password(password string) Secret {
	if password == "" {
		return Secret{}
	}
	return Secret{kind: secretPlain, text: password, derived: &derived{}}
}

// parseVerifier reads what stands behind the name of the mechanism.
func parseVerifier(s string) (verifier, bool) {
	head, keys, ok := strings.Cut(s, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 {
		return verifier{}, false
	}
	var v verifier
	var err error
	if v.iterations, ok = parseCount(count); !ok {
		return verifier{}, false
	}
	b64 := base64.StdEncoding.Strict()
	if v.salt, err = b64.DecodeString(salt); err != nil || len(v.salt) == 0 {
		return verifier{}, false
	}
	if v.storedKey, err = b64.DecodeString(stored); err != nil || len(v.storedKey) != keyLen {
		return verifier{}, false
	}
	if v.serverKey, err = b64.DecodeString(server); err != nil || len(v.serverKey) != keyLen {
		return verifier{}, false
	}
	return v, true
}

// parseCount reads a number of iterations: decimal digits, from 1 to 2³¹−1.
func parseCount(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, false
	}
	return int(n), true
}

// isMD5 says whether s has the form of PostgreSQL's md5 secrets.
func isMD5(s string) bool {
	return len(s) == 35 && strings.HasPrefix(s, "md5") && strings.Trim(s[3:], "0123456789abcdef") == ""
}

// IsZero says whether nothing is known: no login succeeds with this secret.
func (s Secret) IsZero() bool { return s.kind == secretNone }

// Keys is what this secret alone can log in to a node with: a password or an md5 hash. ok is
// false for a SCRAM verifier, which needs the proof of a client, and for the zero Secret.
func (s Secret) Keys() (keys Keys, ok bool) {
	switch s.kind {
	case secretPlain:
		return Keys{Password: s.text}, true
	case secretMD5:
		return Keys{MD5: s.text}, true
	}
	return Keys{}, false
}

// String names the form and hides the content.
func (s Secret) String() string {
	switch s.kind {
	case secretSCRAM:
		return "SCRAM-SHA-256$" + hidden
	case secretMD5:
		return "md5" + hidden
	case secretPlain:
		return hidden
	}
	return "none"
}

// GoString is String, so that %#v shows nothing either.
func (s Secret) GoString() string { return s.String() }

// LogValue is String for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// scram is the verifier to run a SCRAM exchange with: the secret's own, or, for a password, one
// with the given salt and DefaultIterations. It must not be called for another form.
func (s Secret) scram(salt []byte) verifier {
	if s.kind == secretSCRAM {
		return s.verifier
	}
	s.derived.mu.Lock()
	v := s.derived.mu.verifier
	s.derived.mu.Unlock()
	if v.storedKey != nil && bytes.Equal(v.salt, salt) {
		return v
	}
	clientKey, serverKey := deriveKeys(s.text, salt, DefaultIterations)
	v = verifier{
		salt: salt, iterations: DefaultIterations,
		storedKey: hash(clientKey), serverKey: serverKey,
	}
	s.derived.mu.Lock()
	s.derived.mu.verifier = v
	s.derived.mu.Unlock()
	return v
}

// Keys is what logs a user in to a node: the SCRAM keys that a client's proof yielded together
// with the verifier they belong to, or a password, or an md5 hash. The zero Keys can only log in
// where a node asks for nothing. Keys never show their content when printed or logged; they are
// immutable by agreement and may be copied.
type Keys struct {
	ClientKey  []byte
	ServerKey  []byte
	StoredKey  []byte
	Salt       []byte
	Iterations int
	Password   string // plaintext
	MD5        string // as in pg_authid: "md5" and 32 hexadecimal digits
}

// Equal says whether both log in to the same nodes in the same way.
func (k Keys) Equal(o Keys) bool {
	return hmac.Equal(k.ClientKey, o.ClientKey) && hmac.Equal(k.ServerKey, o.ServerKey) &&
		bytes.Equal(k.Salt, o.Salt) && k.Iterations == o.Iterations &&
		hmac.Equal([]byte(k.Password), []byte(o.Password)) && hmac.Equal([]byte(k.MD5), []byte(o.MD5))
}

// String names what is held and hides the content.
func (k Keys) String() string {
	var held []string
	if k.ClientKey != nil {
		held = append(held, "scram")
	}
	if k.Password != "" {
		held = append(held, "password")
	}
	if k.MD5 != "" {
		held = append(held, "md5")
	}
	return "keys(" + strings.Join(held, ",") + ")"
}

// GoString is String, so that %#v shows nothing either.
func (k Keys) GoString() string { return k.String() }

// LogValue is String for slog.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Format prints String for every verb.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalText is String, for encoders that look into structs.
func (k Keys) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// deriveKeys computes ClientKey and ServerKey from a password (RFC 5802, section 3). It costs
// some 150 ns an iteration.
func deriveKeys(password string, salt []byte, iterations int) (clientKey, serverKey []byte) {
	salted, err := pbkdf2.Key(sha256.New, saslprep(password), salt, iterations, keyLen)
	if err != nil {
		panic("BUG: PBKDF2 with a key length or iteration count it refuses: " + err.Error())
	}
	return mac(salted, "Client Key"), mac(salted, "Server Key")
}

// mac is HMAC-SHA-256 over the concatenation of the parts.
func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// hash is SHA-256.
func hash(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// xor is a ^ b, which are equally long.
func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// md5Secret is what PostgreSQL stores for a password under password_encryption = md5.
func md5Secret(user, password string) string { return "md5" + md5Hex(password+user) }

// md5Answer is what a client answers to AuthenticationMD5Password.
func md5Answer(secret string, salt []byte) string {
	return "md5" + md5Hex(strings.TrimPrefix(secret, "md5")+string(salt))
}

// md5Hex is the MD5 sum of s in lower-case hexadecimal digits.
func md5Hex(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // the protocol's own hash
	return hex.EncodeToString(sum[:])
}
