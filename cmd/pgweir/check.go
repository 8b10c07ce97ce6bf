package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// runCheck checks a configuration and every node it names. Exit status: 0 all is well, 1 there
// is advice, 2 something does not work or the configuration is wrong.
func runCheck(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	fs := newFlagSet("check", "-c FILE [--json] [FLAGS]\n\nExit status: 0 all is well, 1 there is advice, 2 something does not work.")
	asJSON := fs.Bool("json", false, "print one JSON array")
	src := newSource(fs, os.Environ())
	if err := parseFlags(fs, args, 0, stdout); err != nil {
		return err
	}
	findings := check(ctx, src)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := printFindings(stdout, findings, *asJSON); err != nil {
		return err
	}
	worst := 0
	for _, f := range findings {
		switch f.Grade {
		case Bad:
			worst = 2
		case Advice:
			worst = max(worst, 1)
		}
	}
	if worst > 0 {
		return &statusError{worst}
	}
	return nil
}

// check lists everything that can be said of a configuration and its nodes.
func check(ctx context.Context, src *Source) []Finding {
	cfg, err := src.Load()
	if err != nil {
		var problems Problems
		if !errors.As(err, &problems) {
			return []Finding{{Check: "configuration", Grade: Bad, Message: err.Error()}}
		}
		var out []Finding
		for _, p := range problems {
			out = append(out, Finding{Check: "configuration", Grade: Bad, Message: p.String()})
		}
		return out
	}
	out := []Finding{{
		Check: "configuration", Grade: Good,
		Message: fmt.Sprintf("%s, %s, %s", plural(len(cfg.Clusters), "cluster"), plural(len(cfg.Databases), "database"), plural(len(cfg.Listen), "listener")),
	}}
	for _, w := range cfg.Warnings {
		out = append(out, Finding{Check: "configuration", Grade: Advice, Message: w})
	}
	out = append(out, certificates(cfg, time.Now())...)
	for _, cl := range cfg.Clusters {
		nodes, err := cl.members(ctx)
		if err != nil || len(nodes) == 0 {
			out = append(out, Finding{Cluster: cl.Name, Check: "discover", Grade: Bad, Message: fmt.Sprintf("no address found: %v", err), Fix: "see that the name resolves on this machine"})
			continue
		}
		login := newMonitorLogin(cl, map[string]string{"application_name": "pgweir check", "statement_timeout": "10s", "search_path": "pg_catalog"})
		out = append(out, judgeCluster(cfg, cl, gather(ctx, login, nodes, cfg.Auth), time.Now())...)
	}
	return out
}

// certificates judges the certificates that clients are shown.
func certificates(cfg *Config, now time.Time) []Finding {
	var out []Finding
	seen := map[string]bool{}
	for _, t := range append([]ClientTLS{cfg.TLS}, tlsOfListeners(cfg)...) {
		if t.Cert == "" || seen[t.Cert] {
			continue
		}
		seen[t.Cert] = true
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		var leaf *x509.Certificate
		if err == nil {
			leaf, err = x509.ParseCertificate(pair.Certificate[0])
		}
		if err != nil {
			out = append(out, Finding{Check: "tls", Grade: Bad, Message: fmt.Sprintf("%s: %v", t.Cert, err), Fix: "see that certificate and key belong together"})
			continue
		}
		grade, words := certificateGrade(leaf.NotAfter, now)
		f := Finding{Check: "tls", Grade: grade, Message: "the certificate that clients see " + words}
		if grade != Good {
			f.Fix = "renew " + t.Cert + "; it is read again without a restart"
		}
		out = append(out, f)
	}
	return out
}

// tlsOfListeners lists the TLS of all listeners.
func tlsOfListeners(cfg *Config) []ClientTLS {
	out := make([]ClientTLS, len(cfg.Listen))
	for i := range cfg.Listen {
		out[i] = cfg.Listen[i].TLS
	}
	return out
}

// printFindings prints one line a finding, with the fix below it, or one JSON array.
func printFindings(w io.Writer, findings []Finding, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(findings)
	}
	mark := map[Grade]string{Good: "✔", Advice: "!", Bad: "✖"}
	counts := map[Grade]int{}
	for _, f := range findings {
		counts[f.Grade]++
		where := f.Check
		if f.Node != "" {
			where = f.Node + " " + where
		}
		if f.Cluster != "" {
			where = f.Cluster + " " + where
		}
		if _, err := fmt.Fprintf(w, "%s %s: %s\n", mark[f.Grade], where, f.Message); err != nil {
			return err
		}
		if f.Fix != "" {
			if _, err := fmt.Fprintf(w, "    → %s\n", f.Fix); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d well, %d could be better (!), %d wrong (✖)\n", counts[Good], counts[Advice], counts[Bad])
	return err
}
