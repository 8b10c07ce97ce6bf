package auth

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	_ "crypto/sha512" // certificates may be signed with it
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// Names of the SASL mechanisms that PostgreSQL knows.
const (
	mechanismSCRAM     = "SCRAM-SHA-256"
	mechanismSCRAMPlus = "SCRAM-SHA-256-PLUS"
	bindingType        = "tls-server-end-point"
)

// Codes of the Authentication messages ("Message Formats" in the PostgreSQL documentation).
const (
	codeOK           = 0
	codeCleartext    = 3
	codeMD5          = 5
	codeSASL         = 10
	codeSASLContinue = 11
	codeSASLFinal    = 12
)

// nonceLen is the number of random bytes in a nonce of ours.
const nonceLen = 18

// encoding is the base64 of SCRAM.
var encoding = base64.StdEncoding.Strict()

// TLSServerEndPoint is the channel binding data of type tls-server-end-point for a connection
// on which the server showed this certificate (RFC 5929, section 4.1). It is nil where the
// certificate's signature names no hash (Ed25519): then there is no channel binding.
func TLSServerEndPoint(cert *x509.Certificate) []byte {
	var h crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256, x509.DSAWithSHA256:
		sum := sha256.Sum256(cert.Raw)
		return sum[:]
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = crypto.SHA512
	default:
		return nil
	}
	d := h.New()
	d.Write(cert.Raw)
	return d.Sum(nil)
}

// newNonce is a fresh nonce of printable characters.
func newNonce() string {
	var raw [nonceLen]byte
	_, _ = rand.Read(raw[:]) // never returns an error
	return encoding.EncodeToString(raw[:])
}

// attributes walks over the comma-separated "x=value" list of a SCRAM message.
type attributes struct {
	rest string
}

// next is the next attribute. Like PostgreSQL it takes one letter, "=", and everything up to a
// comma or the end; problem is what PostgreSQL says about anything else, as a detail.
func (a *attributes) next() (name byte, value, problem string) {
	if a.rest == "" {
		return 0, "", "Attribute expected, but found end of string."
	}
	name = a.rest[0]
	if (name|0x20) < 'a' || (name|0x20) > 'z' {
		return 0, "", fmt.Sprintf("Attribute expected, but found invalid character \"%s\".", printable(name))
	}
	if len(a.rest) < 2 || a.rest[1] != '=' {
		return 0, "", fmt.Sprintf("Expected character \"=\" for attribute \"%c\".", name)
	}
	value, a.rest, _ = strings.Cut(a.rest[2:], ",")
	return name, value, ""
}

// expect is next for an attribute that must have this name.
func (a *attributes) expect(want byte) (value, problem string) {
	if a.rest == "" || a.rest[0] != want {
		found := byte(0)
		if a.rest != "" {
			found = a.rest[0]
		}
		return "", fmt.Sprintf("Expected attribute \"%c\" but found \"%s\".", want, printable(found))
	}
	_, value, problem = a.next()
	return value, problem
}

// printable shows a byte of a peer in a message as PostgreSQL does: itself in single quotes, or
// its code.
func printable(c byte) string {
	if c >= 0x21 && c <= 0x7e {
		return "'" + string(rune(c)) + "'"
	}
	return fmt.Sprintf("0x%02x", c)
}

// printableNonce says whether s may be a nonce: printable ASCII without commas, not empty
// for a nonce of a server (RFC 5802, section 7).
func printableNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return true
}
