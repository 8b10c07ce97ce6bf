package proxy

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"pgweir/internal/pgwire"
	"pgweir/router"
)

// nameSetting is the one setting that a client may give at its login without its being part of the pool's key: it is
// only shown. The session starts with it as with something that it has SET.
const nameSetting = "application_name"

// maxName is how many bytes of a name a node keeps (NAMEDATALEN - 1).
const maxName = 63

// AddHost says what is added to the application_name that a client comes with.
type AddHost uint8

// The values of application_name_add_host.
const (
	AddNothing  AddHost = iota
	AddHostOnly         // the client's address
	AddHostPort         // … and port
)

// given is an application_name that a client came with.
type given struct {
	name string
	ok   bool // it came with one, be it empty
}

// isName says whether a startup parameter is application_name.
func isName(name string) bool { return strings.EqualFold(name, nameSetting) }

// plainName says whether every node takes a name as it is: short, and of printable ASCII.
func plainName(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return len(name) <= maxName
}

// nameLiteral is a name as a constant of SQL, in ASCII only, which means the same whatever the session's client_encoding and
// standard_conforming_strings are.
func nameLiteral(name string) string {
	if plainName(name) && !strings.Contains(name, `\`) {
		return quoteLiteral(name)
	}
	var b strings.Builder
	b.WriteString("E'")
	for i := range len(name) {
		switch c := name[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte(c)
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// clipName is what of a name fits into n bytes; a character is not cut in two, as far as the database has such.
func (s *session) clipName(name string, n int) string {
	if len(name) <= n {
		return name
	}
	if s.base.setting("server_encoding") == "UTF8" {
		for n > 0 && !utf8.RuneStart(name[n]) {
			n--
		}
	}
	return name[:n]
}

// whence is what application_name_add_host adds: where the client is.
func (s *session) whence() string {
	addr := s.client.Conn().RemoteAddr()
	host, port, err := net.SplitHostPort(addr.String())
	switch {
	case addr.Network() == "unix" || err != nil:
		return "unix"
	case s.target.AddHost == AddHostOnly:
		return host
	}
	return net.JoinHostPort(host, port)
}

// introduce gives the session the application_name that the client came with, with what is added to it. It is the node that
// says what becomes of one that is long or not plain, and what it says about it is returned for the client.
func (s *session) introduce() (notices []byte, err error) {
	if s.target.AddHost != AddNothing {
		if !s.name.ok {
			s.name = given{s.base.setting(nameSetting), true}
		}
		if s.name.name == "" {
			s.name.name = "app" // PgBouncer's word
		}
		added := " - " + s.whence()
		s.name.name = s.clipName(s.name.name, max(maxName-len(added), 0)) + added
	}
	if !s.name.ok {
		s.tells(nameSetting, s.base.setting(nameSetting))
		return nil, nil
	}
	text, shown := s.name.name, s.name.name
	if !plainName(text) {
		var ok bool
		if text, shown, notices, ok, err = s.askName(); err != nil {
			return nil, err
		} else if !ok {
			return nil, s.startWithName()
		}
	}
	s.st.startWith(s.srv.names.of(nameLiteral(text)))
	s.nameShown = shown
	s.tells(nameSetting, shown)
	return notices, nil
}

// names are the sets of settings that sessions with a name start with: those with the same one share it.
type names struct {
	mu struct {
		sync.Mutex
		m map[string]*settings
	}
}

// maxNames bounds what is shared; names are the clients' to choose.
const maxNames = 1000

// of is the set with nothing but the name.
func (n *names) of(literal string) *settings {
	n.mu.Lock()
	defer n.mu.Unlock()
	set := n.mu.m[literal]
	if set == nil {
		if n.mu.m == nil || len(n.mu.m) >= maxNames {
			n.mu.m = make(map[string]*settings)
		}
		set = noSettings.with(nameSetting, literal)
		n.mu.m[literal] = set
	}
	return set
}

// askName asks a node what becomes of the name; text is what it is made from again. It is not ok where the node does not take
// the name as SQL, though it takes anything at a login: bytes that are no characters of the database's encoding.
func (s *session) askName() (text, shown string, notices []byte, ok bool, err error) {
	text = s.clipName(s.name.name, maxName)
	const call = "pg_catalog.set_config('" + nameSetting + "', %s, true)"
	a, err := s.inquire(fmt.Sprintf("SELECT "+call+", "+call, nameLiteral(s.name.name), nameLiteral(text)))
	if err != nil || len(a.values) != 2 {
		return "", "", nil, false, err
	}
	return text, a.values[1], a.notices, a.values[0] == a.values[1], nil
}

// startWithName makes the name a part of what node connections of the session start with after all.
func (s *session) startWithName() error {
	for _, l := range s.leases {
		if l != nil {
			s.giveBack(l)
		}
	}
	s.startsWith(pgwire.Param{Name: nameSetting, Value: s.name.name})
	base, err := s.srv.bases.get(s)
	if err != nil {
		return err
	}
	s.base = base
	s.tells(nameSetting, base.setting(nameSetting))
	return nil
}

// renames brings an open transaction back to the name that the session came with, where a RESET in it has reached the node: it
// knows only its own default. What becomes of the lease shows when it is used next.
func (s *session) renames(l *lease) {
	if s.st.tx != txOpen || s.batch != nil {
		return
	}
	local := ""
	if !s.st.set.lacks(nameSetting) {
		local = "LOCAL "
	}
	value, _ := s.st.start.get(nameSetting)
	if err := s.command(l, "SET "+local+settingName(nameSetting)+" TO "+value); err == nil {
		s.st.resume()
		if !l.unsure {
			l.set = s.st.set.onNode()
		}
	}
}

// parameter takes a ParameterStatus, of which the client sees what changes its view. What a lease reports while something of ours
// runs is looked at when it has been brought up to the session: only then does it tell anything.
func (r *relay) parameter(body []byte) (bool, error) {
	name, value, err := pgwire.ParseParameterStatus(body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errHostile, err)
	}
	if string(name) == "in_hot_standby" {
		return false, nil
	}
	isName := string(name) == nameSetting
	effects := r.effects
	if e := r.front(); e != nil && e.swallow {
		r.s.reports = append(r.s.reports, pgwire.Param{Name: string(name), Value: string(value)})
		return false, nil
	} else if e != nil && e.typ == pgwire.MsgQuery && e.unit != nil && !r.failed {
		effects = append(effects[:len(effects):len(effects)], e.unit.Effects...)
	}
	back, first := r.renamed(effects)
	if isName && back {
		r.instead = first
		return false, nil
	}
	news := r.s.tells(string(name), string(value))
	if first != nil && news {
		first = pgwire.AppendParameterStatus(first, name, value)
	}
	r.instead = first
	return news && first == nil, nil
}

// reported returns the ParameterStatus that the client is to see of what leases have reported while something of ours ran.
func (s *session) reported() (out []byte) {
	for i, p := range s.reports {
		later := slices.ContainsFunc(s.reports[i+1:], func(q pgwire.Param) bool { return q.Name == p.Name })
		if !later && s.tells(p.Name, p.Value) {
			out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
		}
	}
	s.reports = s.reports[:0]
	return out
}

// reportedNow is reported where nothing is to go ahead that would still change it.
func (s *session) reportedNow() []byte {
	if len(s.reports) == 0 || s.ahead.sql != "" {
		return nil
	}
	return s.reported()
}

// renamed says whether effects bring the client back to the name that it came with, where the node is at its own default; and
// what the client is to be told then, in the place where a node would: in front of the other parameters.
func (r *relay) renamed(effects []router.Effect) (back bool, told []byte) {
	s := r.s
	if len(s.st.start.pairs) == 0 {
		return false, nil
	}
	back = s.st.lacksBehind(nameSetting, effects, r.failed || s.batchFailed)
	if back && s.tells(nameSetting, s.nameShown) {
		told = pgwire.AppendParameterStatus(nil, nameSetting, s.nameShown)
	}
	return back, told
}

// lacksBehind says whether effects, and a failure behind them, leave the node at its own default of a setting, where the session
// is at the one it started with.
func (s *state) lacksBehind(name string, effects []router.Effect, failed bool) bool {
	t := *s
	t.levels = slices.Clone(s.levels)
	if len(t.levels) == 0 {
		t.push("")
	}
	block := t.tx != txIdle
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case router.EffectSet, router.EffectReset:
			if e.Name != name {
				continue // each copies the settings
			}
		case router.EffectListen, router.EffectUnlisten:
			continue
		}
		t.applyOne(&effects[i])
		switch kind := effects[i].Kind; {
		case kind == router.EffectBegin:
			block = true
		case kind.EndsTransaction():
			block = effects[i].AndChain
		}
	}
	switch {
	case failed && block:
		return t.levels[len(t.levels)-1].effective.lacks(name)
	case failed:
		return t.levels[0].set.lacks(name)
	case block:
		return t.effective.lacks(name)
	}
	return t.set.lacks(name)
}
