package pool

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// SSLMode is how much a connection to a node has to be encrypted and proved: libpq's sslmode.
type SSLMode uint8

// The modes, as in "SSL Mode Descriptions" of the PostgreSQL documentation. The zero value is
// libpq's default.
const (
	SSLPrefer     SSLMode = iota // encrypted if the node can, else not
	SSLDisable                   // never encrypted
	SSLAllow                     // encrypted only if the node insists
	SSLRequire                   // encrypted; the node is verified if there is a root certificate
	SSLVerifyCA                  // encrypted, and the certificate was signed by a known authority
	SSLVerifyFull                // and it is for the host that was asked for
)

// sslModes is the words of the modes.
var sslModes = [...]string{
	SSLPrefer: "prefer", SSLDisable: "disable", SSLAllow: "allow",
	SSLRequire: "require", SSLVerifyCA: "verify-ca", SSLVerifyFull: "verify-full",
}

// String is libpq's word.
func (m SSLMode) String() string { return sslModes[m] }

// ParseSSLMode reads libpq's word.
func ParseSSLMode(s string) (SSLMode, error) {
	for m, word := range sslModes {
		if s == word {
			return SSLMode(m), nil //nolint:gosec // an index of six
		}
	}
	return 0, fmt.Errorf("sslmode %q: expected disable, allow, prefer, require, verify-ca or verify-full", s)
}

// TLSFiles are the files that libpq's parameters of the same names point to. Empty: none.
type TLSFiles struct {
	RootCert string // sslrootcert, or "system" for the system's authorities
	Cert     string // sslcert
	Key      string // sslkey
}

// TLS is how connections to a node are encrypted. The zero value is sslmode prefer without
// verification. It is immutable and may be copied.
type TLS struct {
	mode  SSLMode
	roots *x509.CertPool // nil: not verified, unless system is set
	sys   bool
	certs []tls.Certificate
}

// NewTLS reads the files. As with libpq, sslmode require verifies the authority where
// sslrootcert is given, verify-ca and verify-full need one, and "system" needs verify-full.
func NewTLS(mode SSLMode, files TLSFiles) (TLS, error) {
	t := TLS{mode: mode}
	switch {
	case files.RootCert == "system":
		if mode != SSLVerifyFull {
			return TLS{}, fmt.Errorf("sslmode %q is weaker than what sslrootcert=system needs: use verify-full", mode)
		}
		t.sys = true
	case files.RootCert != "":
		pem, err := os.ReadFile(files.RootCert)
		if err != nil {
			return TLS{}, fmt.Errorf("reading sslrootcert: %w", err)
		}
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM(pem) {
			return TLS{}, fmt.Errorf("sslrootcert %s holds no certificate", files.RootCert)
		}
		if mode == SSLRequire {
			t.mode = SSLVerifyCA
		}
	case mode == SSLVerifyCA || mode == SSLVerifyFull:
		return TLS{}, fmt.Errorf("sslmode %q needs sslrootcert", mode)
	}
	if (files.Cert == "") != (files.Key == "") {
		return TLS{}, errors.New("sslcert and sslkey must be given together")
	}
	if files.Cert != "" {
		cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return TLS{}, fmt.Errorf("reading sslcert and sslkey: %w", err)
		}
		t.certs = []tls.Certificate{cert}
	}
	return t, nil
}

// Mode is the mode in effect.
func (t TLS) Mode() SSLMode { return t.mode }

// Config is the client's side of a handshake with the node of this host name, for callers that
// dial themselves; nil when the mode is SSLDisable. It verifies what the mode says.
func (t TLS) Config(host string) *tls.Config {
	if t.mode == SSLDisable {
		return nil
	}
	return t.config(host)
}

// attempts is whether to try with TLS, in order (libpq's table of sslmode).
func (t TLS) attempts() []bool {
	switch t.mode {
	case SSLDisable:
		return []bool{false}
	case SSLAllow:
		return []bool{false, true}
	case SSLPrefer:
		return []bool{true, false}
	default:
		return []bool{true}
	}
}

// config is the client's side of a handshake.
func (t TLS) config(host string) *tls.Config {
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: t.certs,
		NextProtos:   []string{"postgresql"},
		// Go's own verification does not know libpq's modes; VerifyConnection does it.
		InsecureSkipVerify: true, //nolint:gosec // verified below as sslmode says
		VerifyConnection:   func(s tls.ConnectionState) error { return t.verify(s, host) },
	}
	if host != "" && net.ParseIP(host) == nil {
		c.ServerName = strings.TrimSuffix(host, ".")
	}
	return c
}

// verify checks the node's certificate as far as the mode wants.
func (t TLS) verify(s tls.ConnectionState, host string) error {
	if t.mode != SSLVerifyCA && t.mode != SSLVerifyFull {
		return nil
	}
	if len(s.PeerCertificates) == 0 {
		return errors.New("the node showed no certificate")
	}
	leaf := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: t.roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("verifying the node's certificate: %w", err)
	}
	if t.mode == SSLVerifyFull {
		return verifyHost(leaf, host)
	}
	return nil
}

// verifyHost checks the names in a certificate as libpq does: alternative names where there are
// any, otherwise the common name, in which a leading "*." stands for one label.
func verifyHost(leaf *x509.Certificate, host string) error {
	if host == "" {
		return errors.New("sslmode verify-full needs a host name")
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 {
		return leaf.VerifyHostname(host)
	}
	name, host := strings.ToLower(leaf.Subject.CommonName), strings.ToLower(host)
	if name == host {
		return nil
	}
	if suffix, ok := strings.CutPrefix(name, "*"); ok && net.ParseIP(host) == nil {
		label, rest, _ := strings.Cut(host, ".")
		if label != "" && strings.HasPrefix(suffix, ".") && suffix == "."+rest {
			return nil
		}
	}
	return fmt.Errorf("the node's certificate is for %q, not for host %q", leaf.Subject.CommonName, host)
}
