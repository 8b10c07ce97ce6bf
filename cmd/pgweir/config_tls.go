package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"pgweir/proxy/pool"
)

// ClientTLS is TLS between clients and pgweir, in libpq's words: mode "disable" refuses TLS,
// "allow" and "prefer" offer it, "require" insists, "verify-ca" and "verify-full" ask for the
// client's certificate as well. Mode "default" is prefer with a certificate and disable without.
type ClientTLS struct {
	Mode string
	Cert string // PEM file, with the chain
	Key  string
	CA   string // PEM file with the authorities of client certificates
}

// Offered says whether a client gets TLS when it asks for it.
func (t ClientTLS) Offered() bool {
	return t.Mode != "disable" && (t.Mode != "default" || t.Cert != "")
}

// Required says whether a client without TLS is turned away.
func (t ClientTLS) Required() bool {
	return t.Mode == "require" || t.Mode == "verify-ca" || t.Mode == "verify-full"
}

// Config returns what a server needs, nil where TLS is not offered. Certificate and key are
// read again for the first handshake after one of the files has changed; a change that cannot
// be read leaves the former certificate in use.
func (t ClientTLS) Config() (*tls.Config, error) {
	if !t.Offered() {
		return nil, nil
	}
	pair := &keyPair{cert: t.Cert, key: t.Key}
	if _, err := pair.current(); err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.current() },
		NextProtos:     []string{"postgresql"},
	}
	if t.CA != "" {
		roots, err := authorities(t.CA)
		if err != nil {
			return nil, err
		}
		cfg.ClientCAs, cfg.ClientAuth = roots, tls.VerifyClientCertIfGiven
	}
	if t.Mode == "verify-ca" || t.Mode == "verify-full" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}

// keyPair is a certificate on disk that may be renewed.
type keyPair struct {
	cert, key string
	loaded    atomic.Pointer[loadedPair]
}

// loadedPair is a certificate with the times of the files it was read from.
type loadedPair struct {
	pair              *tls.Certificate
	certTime, keyTime time.Time
}

// current is the certificate as it stands on disk, or the last one that could be read.
func (k *keyPair) current() (*tls.Certificate, error) {
	last := k.loaded.Load()
	certInfo, err := os.Stat(k.cert)
	keyInfo, keyErr := os.Stat(k.key)
	if err = errors.Join(err, keyErr); err == nil {
		if last != nil && certInfo.ModTime().Equal(last.certTime) && keyInfo.ModTime().Equal(last.keyTime) {
			return last.pair, nil
		}
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.cert, k.key); err == nil {
			k.loaded.Store(&loadedPair{pair: &pair, certTime: certInfo.ModTime(), keyTime: keyInfo.ModTime()})
			return &pair, nil
		}
	}
	if last != nil {
		return last.pair, nil
	}
	return nil, fmt.Errorf("read certificate %s and key %s: %w", k.cert, k.key, err)
}

// ServerTLS is TLS between pgweir and the nodes, with libpq's sslmode words and meanings.
type ServerTLS struct {
	Mode string
	CA   string // a file, or "system" for the authorities of the machine
	Cert string // pgweir's own certificate
	Key  string
}

// systemCA stands for the authorities of the machine, as in libpq's sslrootcert.
const systemCA = "system"

// Tried says whether TLS is asked for at the first attempt.
func (t ServerTLS) Tried() bool { return t.Mode != "disable" && t.Mode != "allow" }

// PlainAllowed says whether a connection without TLS may be used: with prefer when the node
// has no TLS, with allow before TLS is tried.
func (t ServerTLS) PlainAllowed() bool {
	return t.Mode == "disable" || t.Mode == "allow" || t.Mode == "prefer"
}

// Config returns what a connection to a node named host needs, nil where TLS is disabled. As
// with libpq, require checks nothing unless an authority is given, verify-ca checks the chain,
// and verify-full the name as well.
func (t ServerTLS) Config(host string) (*tls.Config, error) {
	if t.Mode == "disable" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, NextProtos: []string{"postgresql"}}
	if t.CA != "" && t.CA != systemCA {
		roots, err := authorities(t.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s and key %s: %w", t.Cert, t.Key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	switch {
	case t.Mode == "verify-full":
	case t.Mode == "verify-ca" || t.Mode == "require" && t.CA != "":
		roots := cfg.RootCAs
		cfg.InsecureSkipVerify = true // the name is not checked; the chain is, below
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return verifyChain(cs, roots) }
	default:
		cfg.InsecureSkipVerify = true // sslmode words below verify-ca check nothing
	}
	return cfg, nil
}

// forPool is the same for the connections of package pool. It reads the files.
func (t ServerTLS) forPool() (pool.TLS, error) {
	mode, err := pool.ParseSSLMode(t.Mode)
	if err != nil {
		return pool.TLS{}, err
	}
	return pool.NewTLS(mode, pool.TLSFiles{RootCert: t.CA, Cert: t.Cert, Key: t.Key})
}

// verifyChain checks that the peer's certificate comes from one of roots, whatever its name.
func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(opts)
	return err
}

// authorities reads a PEM file of certificates.
func authorities(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read authorities: %s has no certificate", name)
	}
	return pool, nil
}
