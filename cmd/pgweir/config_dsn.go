package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// dsn is what a node's DSN says: addresses, and values for other keys of the configuration.
type dsn struct {
	hosts []string          // host:port
	said  map[string]string // path → value
}

// dsnKeys are libpq's names for what the configuration calls otherwise. What is mapped to ""
// is taken for the addresses.
var dsnKeys = map[string]string{
	"host": "", "port": "",
	"user": "monitor.user", "password": "monitor.password", "passfile": "monitor.passfile",
	"dbname": "monitor.dbname", "sslmode": "server_tls.mode", "sslrootcert": "server_tls.ca",
	"sslcert": "server_tls.cert", "sslkey": "server_tls.key",
}

// parseDSN reads a connection string as libpq does, in its URI or keyword form, or a plain
// host:port. Errors never contain the password.
func parseDSN(s string) (*dsn, error) {
	var words map[string]string
	var err error
	switch {
	case strings.HasPrefix(s, "postgres://"), strings.HasPrefix(s, "postgresql://"):
		words, err = parseURI(s)
	case strings.Contains(s, "="):
		words, err = parseKeywords(s)
	case strings.Contains(s, "://"):
		return nil, fmt.Errorf("a DSN starts with postgres://, not with %s", s[:strings.Index(s, "://")+3])
	default:
		words = map[string]string{"host": s}
	}
	if err != nil {
		return nil, err
	}
	out := &dsn{said: map[string]string{}}
	for _, word := range slices.Sorted(maps.Keys(words)) {
		val := words[word]
		switch path, ok := dsnKeys[word]; {
		case !ok:
			if near := nearest(word, slices.Sorted(maps.Keys(dsnKeys))); near != "" {
				return nil, fmt.Errorf("%q is no word of a node's DSN; did you mean %q?", word, near)
			}
			return nil, fmt.Errorf("%q is no word of a node's DSN; host, port, user, password, passfile, dbname, sslmode, sslrootcert, sslcert and sslkey are", word)
		case path != "" && val != "":
			out.said[path] = val
		}
	}
	if out.hosts, err = addresses(words["host"], words["port"]); err != nil {
		return nil, err
	}
	return out, nil
}

// addresses pairs libpq's lists of hosts and ports.
func addresses(host, port string) ([]string, error) {
	if host == "" {
		return nil, errors.New("the DSN names no host")
	}
	hosts, ports := strings.Split(host, ","), []string{""}
	if port != "" {
		ports = strings.Split(port, ",")
	}
	if len(ports) != 1 && len(ports) != len(hosts) {
		return nil, fmt.Errorf("the DSN has %s and %s", plural(len(hosts), "host"), plural(len(ports), "port"))
	}
	out := make([]string, len(hosts))
	for i, h := range hosts {
		p := ports[min(i, len(ports)-1)]
		if p != "" {
			if strings.Contains(h, ":") && h[0] != '[' && h[0] != '/' {
				h = "[" + h + "]"
			}
			h += ":" + p
		}
		name, number, err := parseAddr(h, 5432)
		if err != nil {
			return nil, err
		}
		out[i] = net.JoinHostPort(name, strconv.Itoa(number))
		if strings.HasPrefix(name, "/") {
			out[i] = name + ":" + strconv.Itoa(number)
		}
	}
	return out, nil
}

// parseURI reads postgres://user:password@host:port,host:port/dbname?word=value.
func parseURI(s string) (map[string]string, error) {
	_, rest, _ := strings.Cut(s, "://")
	rest, query, _ := strings.Cut(rest, "?")
	where, db, _ := strings.Cut(rest, "/")
	words := map[string]string{}
	if at := strings.LastIndexByte(where, '@'); at >= 0 {
		user, password, _ := strings.Cut(where[:at], ":")
		words["user"], words["password"] = user, password
		where = where[at+1:]
	}
	words["dbname"] = db
	for _, name := range slices.Sorted(maps.Keys(words)) {
		plain, err := url.PathUnescape(words[name])
		if err != nil {
			return nil, fmt.Errorf("the %s of the DSN has a %% that is no escape; write %%25", name)
		}
		words[name] = plain
	}
	host, err := url.PathUnescape(where)
	if err != nil {
		return nil, errors.New("the host of the DSN has a % that is no escape")
	}
	words["host"] = host
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what follows ? in the DSN is not word=value&word=value")
	}
	for name, val := range values {
		words[name] = val[len(val)-1]
	}
	return words, nil
}

// parseKeywords reads word=value word='quoted value'; a backslash takes the next character as it is.
func parseKeywords(s string) (map[string]string, error) {
	words := map[string]string{}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t\n'") {
			return nil, errors.New("the DSN is not word=value word=value")
		}
		val, after, err := keywordValue(strings.TrimLeft(rest, " \t\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		words[name], s = val, after
	}
	return words, nil
}

// keywordValue reads one value and returns what follows it.
func keywordValue(s string) (val, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			out.WriteByte(s[i])
		case quoted && c == '\'':
			return out.String(), s[i+1:], nil
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			return out.String(), s[i:], nil
		default:
			out.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("the quote is not closed")
	}
	return out.String(), "", nil
}
