package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// Effective is one value that holds, and where it came from.
type Effective struct {
	Path   string `json:"path"`
	Value  string `json:"value"`  // *** for a secret that is set
	Source string `json:"source"` // default, file:line, env NAME or flag --name
}

// Effective lists every value of c.
func (c *Config) Effective() []Effective {
	var out []Effective
	schema(c, "").show("", func(path, text string, secret bool) {
		if secret && text != "" {
			text = hidden
		}
		out = append(out, Effective{Path: path, Value: text, Source: c.origin(path)})
	})
	return out
}

// origin is where the value at path came from: the place of the key itself, of the short form
// that stands for it, or of the key above that it was taken from.
func (c *Config) origin(path string) string {
	if o, ok := c.origins[path]; ok {
		return o
	}
	around, key := parentPath(path), path[strings.LastIndexByte(path, '.')+1:]
	switch key {
	case "addr", "host", "port", "listen":
		if o, ok := c.origins[around]; ok {
			return o
		}
	case "name":
		return c.origin(around + ".host")
	case "password":
		if o, ok := c.origins[path+"_file"]; ok && strings.HasPrefix(path, "users.") {
			return o
		}
	}
	if above := inherited(path); above != "" {
		return c.origin(above)
	}
	return "default"
}

// inherited is the key of the top that a cluster's or listener's value starts from, "" for
// values that start from nothing.
func inherited(path string) string {
	if rest, ok := strings.CutPrefix(path, "clusters."); ok {
		_, below, _ := strings.Cut(rest, ".")
		return below
	}
	if strings.HasPrefix(path, "listen[") {
		_, below, _ := strings.Cut(path, ".")
		return below
	}
	return ""
}

// runConfig is config print.
func runConfig(_ context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 || args[0] != "print" {
		return &usageError{"config: the only thing to do with it is config print"}
	}
	fs := newFlagSet("config print", "[-c FILE] [--json] [FLAGS]")
	asJSON := fs.Bool("json", false, "one JSON array")
	src := newSource(fs, os.Environ())
	if err := parseFlags(fs, args[1:], 0, stdout); err != nil {
		return err
	}
	cfg, err := src.Load()
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(stderr, "warning: "+w)
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(cfg.Effective())
	}
	tw := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, e := range cfg.Effective() {
		val := e.Value
		if val == "" {
			val = `""`
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", e.Path, val, e.Source)
	}
	return tw.Flush()
}
