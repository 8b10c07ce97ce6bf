package pgwire

import (
	"fmt"
	"strings"
)

// Options is what the startup parameter options asks for.
type Options struct {
	// Settings in the order in which PostgreSQL applies them. Names are as given, but with
	// underscores for dashes; whether there is such a setting is the node's to say.
	Settings []Param
	// Opaque says that there are switches whose meaning depends on the server's version
	// (-d, -f, -t): only a node that is given the text as it stands can tell what they do.
	Opaque bool
}

// serverSwitches is the switches of a server process, in the notation of getopt: a colon stands
// behind those that take an argument. "--name=value" is the switch "-" with an argument.
const serverSwitches = "B:bC:c:D:d:EeFf:h:ijk:lN:nOPp:r:S:sTt:v:W:-:"

// switchSettings is the switches that set a fixed setting to their argument.
var switchSettings = map[byte]string{
	'B': "shared_buffers",
	'h': "listen_addresses",
	'k': "unix_socket_directories",
	'N': "max_connections",
	'p': "port",
	'S': "work_mem",
	'W': "post_auth_delay",
}

// switchConstants is the switches that set a fixed setting to a fixed value.
var switchConstants = map[byte]Param{
	'e': {"datestyle", "euro"},
	'F': {"fsync", "false"},
	'i': {"listen_addresses", "*"},
	'l': {"ssl", "true"},
	'O': {"allow_system_table_mods", "true"},
	'P': {"ignore_system_indexes", "true"},
	's': {"log_statement_stats", "true"},
}

// ParseOptions reads the startup parameter options as a server process reads it: split at
// unescaped white space, then taken as command-line switches. It takes time in proportion to
// the text, whatever the text is.
//
// An error is the one with which PostgreSQL refuses the text, after the login was proven: SQLSTATE
// 42601. Settings that were read before it are returned with it, since a node applies (and may
// refuse) them first.
func ParseOptions(text string) (Options, error) {
	p := optionParser{args: SplitOptions(text)}
	for p.next < len(p.args) {
		arg := p.args[p.next]
		p.next++
		switch {
		case arg == "--":
			p.rest = append(p.rest, p.args[p.next:]...)
			p.next = len(p.args)
		case len(arg) < 2 || arg[0] != '-':
			p.rest = append(p.rest, arg)
		default:
			if err := p.switches(arg); err != nil {
				return p.out, err
			}
		}
	}
	if len(p.rest) > 0 {
		return p.out, invalidArgument(p.rest[0])
	}
	return p.out, nil
}

// optionParser walks the arguments as getopt does.
type optionParser struct {
	args []string
	next int      // the argument to be looked at next
	rest []string // the arguments that are no switches, which no server process takes
	out  Options
}

// switches reads one argument: a dash and one or more switches, of which the last may have its
// own argument behind it or in the next one.
func (p *optionParser) switches(arg string) error {
	for i := 1; i < len(arg); i++ {
		flag, last := arg[i], i == len(arg)-1
		at := strings.IndexByte(serverSwitches, flag)
		if at < 0 || flag == ':' {
			return p.invalid(arg, last)
		}
		if at+1 == len(serverSwitches) || serverSwitches[at+1] != ':' {
			p.apply(flag)
			continue
		}
		value := arg[i+1:]
		if last {
			if p.next == len(p.args) {
				return p.invalid(arg, true)
			}
			value = p.args[p.next]
			p.next++
		}
		return p.applyValue(flag, value)
	}
	return nil
}

// invalid is the error about an unknown switch or a missing argument. PostgreSQL names the
// argument before the one that it would have looked at next; inside of a group of switches that
// is not the group but what stands before it, and getopt has moved there what is no switch.
func (p *optionParser) invalid(arg string, last bool) error {
	switch {
	case last:
		return invalidArgument(arg)
	case len(p.rest) > 0:
		return invalidArgument(p.rest[len(p.rest)-1])
	case p.next >= 2:
		return invalidArgument(p.args[p.next-2])
	}
	return invalidArgument("postgres")
}

// apply takes a switch without an argument. Those that mean something only to a server started
// by hand are ignored.
func (p *optionParser) apply(flag byte) {
	if s, ok := switchConstants[flag]; ok {
		p.out.Settings = append(p.out.Settings, s)
	}
}

// applyValue takes a switch with its argument.
func (p *optionParser) applyValue(flag byte, value string) error {
	switch flag {
	case 'c', '-':
		name, v, ok := strings.Cut(value, "=")
		if !ok {
			prefix := "-c "
			if flag == '-' {
				prefix = "--"
			}
			return &ProtocolError{Code: CodeSyntaxError, Message: prefix + value + " requires a value"}
		}
		name = strings.ReplaceAll(name, "-", "_")
		p.out.Settings = append(p.out.Settings, Param{name, v})
	case 'd', 'f', 't':
		p.out.Opaque = true
	default:
		if name, ok := switchSettings[flag]; ok {
			p.out.Settings = append(p.out.Settings, Param{name, value})
		}
	}
	return nil
}

// invalidArgument is PostgreSQL's error about an argument that is none.
func invalidArgument(arg string) *ProtocolError {
	return &ProtocolError{
		Code:    CodeSyntaxError,
		Message: fmt.Sprintf("invalid command-line argument for server process: %s", arg),
		Hint:    `Try "postgres --help" for more information.`,
	}
}

// SplitOptions cuts the startup parameter options into arguments: at white space, unless a
// backslash stands before it. Another backslash before a character means that character; one
// at the end means nothing.
func SplitOptions(text string) []string {
	var args []string
	var arg []byte
	for i := 0; ; {
		for i < len(text) && isSpace(text[i]) {
			i++
		}
		if i == len(text) {
			return args
		}
		arg = arg[:0]
		for escaped := false; i < len(text) && (escaped || !isSpace(text[i])); i++ {
			if text[i] == '\\' && !escaped {
				escaped = true
				continue
			}
			escaped = false
			arg = append(arg, text[i])
		}
		args = append(args, string(arg))
	}
}

// AppendOption puts one setting behind an options text, in such a way that SplitOptions and
// ParseOptions give it back: "-c name=value" with what needs it escaped.
func AppendOption(dst []byte, name, value string) []byte {
	if len(dst) > 0 {
		dst = append(dst, ' ')
	}
	dst = append(dst, "-c "...)
	dst = appendEscaped(dst, name)
	dst = append(dst, '=')
	return appendEscaped(dst, value)
}

// appendEscaped puts a backslash before white space and backslashes.
func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if s[i] == '\\' || isSpace(s[i]) {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return dst
}

// isSpace is C's isspace in its own locale.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
