package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// leaf is a value that is written as one word.
type leaf[T any] struct {
	p      *T
	parse  func(string) (T, error)
	format func(T) string
	secret bool
}

func (l leaf[T]) decode(d *decoder, n *yaml.Node, path string) {
	text, ok := d.scalar(n, path)
	if !ok {
		return
	}
	v, err := l.parse(text)
	if err != nil {
		d.fail(n, path, "%v", err)
		return
	}
	if l.secret {
		d.secrets[path] = true
	}
	*l.p = v
}

func (l leaf[T]) show(path string, emit emitter) { emit(path, l.format(*l.p), l.secret) }

// optional is a leaf that a level may leave to the levels above it.
type optional[T any] struct {
	p    **T
	leaf func(*T) value
}

func (o optional[T]) decode(d *decoder, n *yaml.Node, path string) {
	v, before := new(T), len(d.problems)
	o.leaf(v).decode(d, n, path)
	if len(d.problems) == before {
		*o.p = v
	}
}

func (o optional[T]) show(path string, emit emitter) {
	if *o.p != nil {
		o.leaf(*o.p).show(path, emit)
	}
}

// section is a mapping with fixed keys.
type section []field

func (s section) decode(d *decoder, n *yaml.Node, path string) { d.section(n, path, s) }

func (s section) show(path string, emit emitter) {
	for _, f := range s {
		f.val.show(joinPath(path, f.key), emit)
	}
}

// duration is a time with a unit, from least to most.
func duration(p *time.Duration, least, most time.Duration) value {
	return leaf[time.Duration]{p: p, format: formatDuration, parse: func(s string) (time.Duration, error) {
		v, err := parseDuration(s)
		switch {
		case err != nil:
			return 0, err
		case v < least || v > most:
			return 0, fmt.Errorf("%q: between %s and %s is accepted", s, formatDuration(least), formatDuration(most))
		}
		return v, nil
	}}
}

// parseDuration reads a time as Go writes it, with days besides ("7d"). 0 needs no unit.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	v, err := time.ParseDuration(s)
	switch {
	case err == nil && v >= 0:
		return v, nil
	case err == nil:
		return 0, fmt.Errorf("%q: a time cannot be negative", s)
	case isNumber(s):
		return 0, fmt.Errorf("%q: needs a unit, for example %sm", s, s)
	default:
		return 0, fmt.Errorf("%q: is no time; for example 200ms, 30s, 10m, 1h", s)
	}
}

// formatDuration is the shortest text that parseDuration reads back.
func formatDuration(v time.Duration) string {
	switch {
	case v == 0:
		return "0"
	case v%time.Hour == 0:
		return strconv.FormatInt(int64(v/time.Hour), 10) + "h"
	case v%time.Minute == 0:
		return strconv.FormatInt(int64(v/time.Minute), 10) + "m"
	default:
		return v.String()
	}
}

// isNumber says whether s is a number without a unit.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// parseSize reads a number of bytes with PostgreSQL's units, which are powers of 1024.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTiB ")
	unit := strings.TrimSpace(s[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q: is no size; for example 512kB, 16MB, 1GB", s)
	}
	factor := map[string]int64{
		"B": 1, "kB": 1 << 10, "KB": 1 << 10, "KiB": 1 << 10, "MB": 1 << 20, "MiB": 1 << 20,
		"GB": 1 << 30, "GiB": 1 << 30, "TB": 1 << 40, "TiB": 1 << 40,
	}[unit]
	switch {
	case n == 0:
		return 0, nil
	case unit == "":
		return 0, fmt.Errorf("%q: needs a unit, for example %sMB", s, s)
	case factor == 0:
		return 0, fmt.Errorf("%q: the unit %q is not known; B, kB, MB, GB and TB are", s, unit)
	case n > math.MaxInt64/factor:
		return 0, fmt.Errorf("%q: is too large", s)
	}
	return n * factor, nil
}

// formatSize is the shortest text that parseSize reads back.
func formatSize(n int64) string {
	for _, u := range []struct {
		name   string
		factor int64
	}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}} {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	if n == 0 {
		return "0"
	}
	return strconv.FormatInt(n, 10) + "B"
}

// integer is a whole number from least to most.
func integer(p *int, least, most int) value {
	return leaf[int]{p: p, format: strconv.Itoa, parse: func(s string) (int, error) {
		v, err := strconv.Atoi(s)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q: is no whole number", s)
		case v < least && most == math.MaxInt:
			return 0, fmt.Errorf("%d: at least %d is accepted", v, least)
		case v < least || v > most:
			return 0, fmt.Errorf("%d: between %d and %d is accepted", v, least, most)
		}
		return v, nil
	}}
}

// boolean is true or false, in YAML's words and PostgreSQL's.
func boolean(p *bool) value {
	return leaf[bool]{p: p, format: strconv.FormatBool, parse: func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "true", "on", "yes", "1":
			return true, nil
		case "false", "off", "no", "0":
			return false, nil
		}
		return false, fmt.Errorf("%q: true or false is accepted", s)
	}}
}

// text is any text that is not empty.
func text(p *string) value {
	return leaf[string]{p: p, format: func(s string) string { return s }, parse: notEmpty}
}

// mayBeEmpty is any text; an empty one says what leaving the key out says.
func mayBeEmpty(p *string) value {
	same := func(s string) string { return s }
	return leaf[string]{p: p, format: same, parse: func(s string) (string, error) { return s, nil }}
}

// notEmpty returns s, or an error for an empty one.
func notEmpty(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty")
	}
	return s, nil
}

// secret is text that is never shown. It may be empty: an unset variable of a container is.
func secret(p *Secret) value {
	return leaf[Secret]{p: p, secret: true, parse: func(s string) (Secret, error) { return Secret(s), nil }, format: Secret.reveal}
}

// path is the name of a file; one that stands in a configuration file starts from its directory.
// Empty says what leaving the key out says.
type path struct {
	p   *string
	dir string
}

func (f path) decode(d *decoder, n *yaml.Node, at string) {
	mayBeEmpty(f.p).decode(d, n, at)
	if name := *f.p; name != "" && name != systemCA && d.places[n] == "" && !filepath.IsAbs(name) {
		*f.p = filepath.Join(f.dir, name)
	}
}

func (f path) show(at string, emit emitter) { emit(at, *f.p, false) }

// secretFile is the name of a file whose content is a secret; it is read at once.
type secretFile struct {
	p   *Secret
	dir string
}

func (f secretFile) decode(d *decoder, n *yaml.Node, at string) {
	var name string
	path{&name, f.dir}.decode(d, n, at)
	if name == "" {
		return
	}
	content, err := os.ReadFile(name)
	if err != nil {
		d.fail(n, at, "%s cannot be read: %s", name, plainCause(err))
		return
	}
	*f.p = Secret(strings.TrimRight(string(content), "\r\n"))
}

func (f secretFile) show(string, emitter) {} // shown as the password it holds

// word is one value of a closed list.
type word[T comparable] struct {
	name string
	val  T
	// refuse is what to say when the word is known but not available.
	refuse string
}

// choice is a leaf with a closed list of words.
func choice[T comparable](p *T, words ...word[T]) value {
	var known []string
	for _, w := range words {
		if w.refuse == "" {
			known = append(known, w.name)
		}
	}
	return leaf[T]{
		p: p,
		format: func(v T) string {
			i := slices.IndexFunc(words, func(w word[T]) bool { return w.val == v && w.refuse == "" })
			if i < 0 {
				return ""
			}
			return words[i].name
		},
		parse: func(s string) (T, error) {
			var zero T
			for _, w := range words {
				switch {
				case w.name != s:
				case w.refuse != "":
					return zero, fmt.Errorf("%q: %s", s, w.refuse)
				default:
					return w.val, nil
				}
			}
			return zero, fmt.Errorf("%q: %s", s, accepted(s, known))
		},
	}
}

// accepted says what would have been taken instead of s.
func accepted(s string, known []string) string {
	msg := "accepted: " + strings.Join(known, ", ")
	if near := nearest(s, known); near != "" {
		msg += fmt.Sprintf("; did you mean %q?", near)
	}
	return msg
}

// words makes a choice of texts.
func words(names ...string) []word[string] {
	out := make([]word[string], len(names))
	for i, n := range names {
		out[i] = word[string]{name: n, val: n}
	}
	return out
}

// textList is a list of texts; an empty list says that there are none.
type textList struct {
	p      *[]string
	sorted bool
	unset  string // what is shown of a list that is not given
}

func (l textList) decode(d *decoder, n *yaml.Node, at string) {
	out := []string{}
	d.items(n, at, func(item *yaml.Node, at string) {
		s, ok := d.scalar(item, at)
		if !ok {
			return
		}
		switch {
		case s == "":
			d.fail(item, at, "is empty")
		case slices.Contains(out, s):
			d.fail(item, at, "%q is given twice", s)
		default:
			out = append(out, s)
		}
	})
	if l.sorted {
		slices.Sort(out)
	}
	*l.p = out
}

func (l textList) show(at string, emit emitter) {
	if *l.p == nil {
		emit(at, l.unset, false)
		return
	}
	emit(at, "["+strings.Join(*l.p, ", ")+"]", false)
}

// lagValue is max_lag: a size, a time, or both.
type lagValue struct{ p *Lag }

func (l lagValue) decode(d *decoder, n *yaml.Node, at string) {
	var sizes, times int
	d.items(n, at, func(item *yaml.Node, at string) {
		s, ok := d.scalar(item, at)
		if !ok {
			return
		}
		size, sizeErr := parseSize(s)
		span, timeErr := parseDuration(s)
		switch {
		case sizeErr == nil && size == 0, timeErr == nil && span == 0:
			d.fail(item, at, "%q: more than nothing is accepted; a standby is always a little behind", s)
		case sizeErr == nil:
			l.p.Bytes = size
			sizes++
		case timeErr == nil:
			l.p.Time = span
			times++
		default:
			d.fail(item, at, "%q: is neither a size nor a time; for example 16MB, 10s or [16MB, 10s]", s)
		}
	})
	if sizes > 1 || times > 1 {
		d.fail(n, at, "takes at most one size and one time")
	}
}

func (l lagValue) show(at string, emit emitter) {
	emit(at, "["+formatSize(l.p.Bytes)+", "+formatDuration(l.p.Time)+"]", false)
}

// parseAddr reads host:port; standard is the port where none is given, 0 when one must be.
func parseAddr(s string, standard int) (host string, port int, err error) {
	if strings.Contains(s, "://") {
		return "", 0, fmt.Errorf("%q: is no address; give host:port, or use --node for a DSN", s)
	}
	if strings.HasPrefix(s, "/") && standard != 0 {
		return parseSocket(s, standard)
	}
	host, rest, err := net.SplitHostPort(s)
	if err != nil {
		bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		switch {
		case standard == 0:
			return "", 0, fmt.Errorf("%q: is no address; for example :6432 or 127.0.0.1:6432", s)
		case strings.Contains(bare, ":") && net.ParseIP(bare) == nil:
			return "", 0, fmt.Errorf("%q: is no address; for example pg-a:5432 or [::1]:5432", s)
		}
		return bare, standard, checkHost(bare)
	}
	port, err = strconv.Atoi(rest)
	if err != nil || port < 0 || port > 65535 || port == 0 && standard != 0 {
		return "", 0, fmt.Errorf("%q: %q is no port; 1 to 65535 are", s, rest)
	}
	if host == "" && standard != 0 {
		return "", 0, fmt.Errorf("%q: the host is missing", s)
	}
	return host, port, checkHost(host)
}

// parseSocket reads the directory of a Unix socket, with :port behind it or without.
func parseSocket(s string, standard int) (dir string, port int, err error) {
	dir, rest, found := strings.Cut(s, ":")
	if !found {
		return dir, standard, nil
	}
	if port, err = strconv.Atoi(rest); err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%q: %q is no port; 1 to 65535 are", s, rest)
	}
	return dir, port, nil
}

// checkHost refuses what cannot be the name or the address of a host.
func checkHost(host string) error {
	switch {
	case strings.Contains(host, ":") && net.ParseIP(host) == nil:
		return fmt.Errorf("%q: is no host; give host:port, or use --node for a DSN", host)
	case strings.HasPrefix(host, "/"): // the directory of a Unix socket
		return nil
	case strings.ContainsAny(host, " \t/@?,"):
		return fmt.Errorf("%q: is no host; give host:port, or use --node for a DSN", host)
	}
	return nil
}

// addr is an address to listen on; "off" stands for none where that is allowed.
func addr(p *string, mayBeOff bool) value {
	return leaf[string]{
		p: p,
		format: func(s string) string {
			if s == "" {
				return "off"
			}
			return s
		},
		parse: func(s string) (string, error) {
			if mayBeOff && s == "off" {
				return "", nil
			}
			_, _, err := parseAddr(s, 0)
			return s, err
		},
	}
}
