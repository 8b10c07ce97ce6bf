package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

// newAuthority makes one, with its certificate in a file.
func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), name+".pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.cert, a.key, der = sign(t, template, nil)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// sign makes a key and a certificate for it, by itself when parent is nil.
func sign(t *testing.T, template *x509.Certificate, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, der
}

// issue makes a certificate for a host and returns the files of it and of its key.
func (a *authority) issue(t *testing.T, dir, host string, serial int64) (certFile, keyFile string) {
	t.Helper()
	_, key, der := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", keyDER)
	return certFile, keyFile
}

// writePEM writes one block.
func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake lets a client and a server meet and returns the client's view.
func handshake(t *testing.T, client, server *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	left, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	right, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer right.Close()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = left.SetDeadline(deadline), right.SetDeadline(deadline)
	s, c := tls.Server(right, server), tls.Client(left, client)
	serverEnd := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1}) // a client that is refused learns it at its first read
		}
		serverEnd <- err
		right.Close()
	}()
	err = c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	left.Close()
	if serverErr := <-serverEnd; err == nil {
		err = serverErr
	}
	return c.ConnectionState(), err
}

// TestServerTLSModes holds libpq's meanings of the words, against a right and a wrong authority
// and name.
func TestServerTLSModes(t *testing.T) {
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	cert, key := right.issue(t, t.TempDir(), "pg-a", 2)
	server, err := ClientTLS{Mode: "require", Cert: cert, Key: key}.Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode, ca, host string
		want           bool
	}{
		{"prefer", "", "pg-b", true},
		{"require", "", "pg-b", true},
		{"require", right.file, "pg-b", true},
		{"require", wrong.file, "pg-a", false},
		{"verify-ca", right.file, "pg-b", true},
		{"verify-ca", wrong.file, "pg-a", false},
		{"verify-full", right.file, "pg-a", true},
		{"verify-full", right.file, "pg-b", false},
		{"verify-full", wrong.file, "pg-a", false},
		{"verify-full", systemCA, "pg-a", false},
	} {
		client, err := ServerTLS{Mode: c.mode, CA: c.ca}.Config(c.host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(t, client, server); (err == nil) != c.want {
			t.Errorf("%v: %v", c, err)
		}
	}
	if cfg, err := (ServerTLS{Mode: "disable"}).Config("x"); cfg != nil || err != nil {
		t.Error("disable has a configuration")
	}
}

// TestClientCertificates holds that verify-ca asks for one and require does not.
func TestClientCertificates(t *testing.T) {
	a := newAuthority(t, "right")
	cert, key := a.issue(t, t.TempDir(), "pgweir", 2)
	clientCert, clientKey := a.issue(t, t.TempDir(), "client", 3)
	for _, c := range []struct {
		mode, cert, key string
		want            bool
	}{
		{"require", "", "", true}, {"verify-ca", "", "", false}, {"verify-ca", clientCert, clientKey, true}, {"verify-full", clientCert, clientKey, true},
	} {
		server, err := ClientTLS{Mode: c.mode, Cert: cert, Key: key, CA: a.file}.Config()
		if err != nil {
			t.Fatal(err)
		}
		client, err := ServerTLS{Mode: "require", Cert: c.cert, Key: c.key}.Config("pgweir")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(t, client, server); (err == nil) != c.want {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// TestCertificateIsReadAgain holds that a renewed certificate is shown without a restart, and
// that a broken one leaves the former in use.
func TestCertificateIsReadAgain(t *testing.T) {
	a, dir := newAuthority(t, "right"), t.TempDir()
	cert, key := a.issue(t, dir, "pgweir", 2)
	server, err := ClientTLS{Mode: "prefer", Cert: cert, Key: key}.Config()
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		state, err := handshake(t, &tls.Config{InsecureSkipVerify: true}, server)
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 2 {
		t.Errorf("serial %d", got)
	}
	later := time.Now().Add(time.Second)
	a.issue(t, dir, "pgweir", 3)
	for _, f := range []string{cert, key} {
		if err := os.Chtimes(f, later, later); err != nil {
			t.Fatal(err)
		}
	}
	if got := serial(); got != 3 {
		t.Errorf("after the renewal: serial %d", got)
	}
	if err := os.WriteFile(cert, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Errorf("after a torn write: serial %d", got)
	}
}

// TestClientTLSWords holds when TLS is offered and when it is required.
func TestClientTLSWords(t *testing.T) {
	for _, c := range []struct {
		tls               ClientTLS
		offered, required bool
	}{
		{ClientTLS{Mode: "default"}, false, false},
		{ClientTLS{Mode: "default", Cert: "x"}, true, false},
		{ClientTLS{Mode: "disable", Cert: "x"}, false, false},
		{ClientTLS{Mode: "allow", Cert: "x"}, true, false},
		{ClientTLS{Mode: "require", Cert: "x"}, true, true},
		{ClientTLS{Mode: "verify-full", Cert: "x"}, true, true},
	} {
		if c.tls.Offered() != c.offered || c.tls.Required() != c.required {
			t.Errorf("%+v: offered %v, required %v", c.tls, c.tls.Offered(), c.tls.Required())
		}
	}
}
