package e2e

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgweir/internal/pgtest"
)

// A parity script is a paragraph of lines for each exchange. A file holds several scripts, each
// under a line "=== name". The lines of a script's head:
//
//	readonly            writes nothing, so the next script finds the fixture as it was
//	super               log in as a superuser
//	versions 14-16      run on these versions of PostgreSQL only
//	mask RE => TEXT     replace in every line of the transcript; a line that becomes empty is left out
//	differs SECTION     a listed difference (docs/differences.md): must differ
//
// A paragraph sends all its lines in one write and then reads as many ReadyForQuery as it holds
// Q, F and S. Its lines, for the client named by the last "@name" (at first "a", which connects by
// itself):
//
//	@name               go on as this client
//	connect k=v …       log in with startup parameters (user=, database=, minor=) and show the answer
//	Q SQL               Query                      P NAME (OIDs) SQL   Parse; "-" is the unnamed one
//	B PORTAL STMT …     Bind: arguments, NULL, pf=F,F parameter formats, rf=F,F result formats
//	D S NAME, D P NAME  Describe                   E PORTAL N          Execute
//	C S NAME, C P NAME  Close                      H, S                Flush, Sync
//	d DATA, c, f WHY    CopyData, CopyDone, CopyFail
//	F OID RF ARG …      FunctionCall, text or x'hex' arguments, result format RF
//	X                   Terminate
//	raw BYTES           any bytes
//	until TYPES         send what is queued, read up to a message of one of the types
//	ready N             send what is queued, read up to the N-th ReadyForQuery, instead of counting
//	end                 send what is queued, read until the server closes
//	nothing             send what is queued, read nothing
//	halfclose           close the client's sending side
//	cancel              send what is queued, then CancelRequests until the client gets an error
//	want TEXT           the transcript so far of this paragraph must hold TEXT
//
// SQL and data may be written as a Go string with quotes; otherwise the rest of the line counts,
// and a line that ends in a backslash goes on in the next.
type script struct {
	name, file string
	readonly   bool
	super      bool
	min, max   int
	masks      []mask
	differs    string
	steps      []step
}

// mask is a replacement in the lines of a transcript.
type mask struct {
	re *regexp.Regexp
	to string
}

// step is one line of a script, or the end of a paragraph (word "").
type step struct {
	line int
	word string
	rest string
}

// loadScripts reads all scripts.
func loadScripts(t testing.TB) []*script {
	t.Helper()
	files, err := filepath.Glob("testdata/parity/*.txt")
	must(t, err)
	slices.Sort(files)
	var all []*script
	seen := make(map[string]bool)
	for _, f := range files {
		list, err := parseScripts(f)
		must(t, err)
		for _, s := range list {
			if seen[s.name] {
				t.Fatalf("%s: two scripts are called %q", f, s.name)
			}
			seen[s.name] = true
		}
		all = append(all, list...)
	}
	return all
}

// parseScripts reads one file.
func parseScripts(file string) ([]*script, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []*script
	var s *script
	head := false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		at := n
		for strings.HasSuffix(line, "\\") && lines.Scan() {
			n++
			line = strings.TrimSuffix(line, "\\") + strings.TrimSpace(lines.Text())
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, "#"):
		case word == "===":
			s = &script{name: strings.TrimSpace(rest), file: filepath.Base(file)}
			list = append(list, s)
			head = true
		case s == nil && line != "":
			return nil, fmt.Errorf("%s:%d: before the first script", file, at)
		case s == nil:
		case line == "":
			head = false
			s.steps = append(s.steps, step{line: at})
		case head && slices.Contains(headWords, word):
			if err := s.header(word, strings.TrimSpace(rest)); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, at, err)
			}
		default:
			head = false
			s.steps = append(s.steps, step{at, word, strings.TrimSpace(rest)})
		}
	}
	for _, s := range list {
		s.steps = append(s.steps, step{})
	}
	return list, lines.Err()
}

// headWords are the words of a head.
var headWords = []string{"readonly", "super", "versions", "mask", "differs"}

// header reads one line of a script's head.
func (s *script) header(word, rest string) error {
	switch word {
	case "readonly":
		s.readonly = true
	case "super":
		s.super = true
	case "versions":
		lo, hi, _ := strings.Cut(rest, "-")
		var err1, err2 error
		s.min, err1 = strconv.Atoi(lo)
		if hi != "" {
			s.max, err2 = strconv.Atoi(hi)
		}
		return errors.Join(err1, err2)
	case "mask":
		re, to, ok := strings.Cut(rest, " =>")
		to = strings.TrimSpace(to)
		if !ok {
			return errors.New("mask without =>")
		}
		r, err := regexp.Compile(re)
		s.masks = append(s.masks, mask{r, to})
		return err
	case "differs":
		s.differs = rest
	default:
		return fmt.Errorf("unknown word %q in a head", word)
	}
	return nil
}

// runs says whether the script is meant for a major version.
func (s *script) runs(version int) bool {
	return (s.min == 0 || version >= s.min) && (s.max == 0 || version <= s.max)
}

// target is where a script runs.
type target struct {
	addr     string
	database string
}

// runner runs one script.
type runner struct {
	s       *script
	to      target
	clients map[string]*pgtest.RawClient
	current string
	queue   []pgtest.Message
	raw     bool // the queue has something that cannot be counted
	ready   int  // ReadyForQuery that the queue asks for
	out     []string
	mark    int // where the paragraph's transcript begins
	reads   int // units outside a transaction that are reads by their text
	oids    map[string]string
}

// run runs the script and returns its transcript and how many reads it held.
func (s *script) run(to target) (transcript []string, reads int, err error) {
	r := &runner{s: s, to: to, clients: make(map[string]*pgtest.RawClient), current: "a", oids: make(map[string]string)}
	defer func() {
		for _, c := range r.clients {
			_ = c.Close()
		}
	}()
	for _, st := range s.steps {
		if err := r.step(st); err != nil {
			return r.out, r.reads, fmt.Errorf("%s:%d: %s: %w; so far:\n%s", s.file, st.line, st.word, err, strings.Join(r.out, "\n"))
		}
	}
	return r.out, r.reads, nil
}

// client is the current client, connected.
func (r *runner) client() (*pgtest.RawClient, error) {
	if c := r.clients[r.current]; c != nil {
		return c, nil
	}
	c, err := pgtest.Connect(r.config(nil))
	if err != nil {
		return nil, err
	}
	r.clients[r.current] = c
	return c, nil
}

// config is how a client of this script connects.
func (r *runner) config(params []string) pgtest.ClientConfig {
	cfg := pgtest.ClientConfig{Addr: r.to.addr, User: appUser, Password: appPassword, Database: r.to.database, Check: secondOpinion()}
	if r.s.super {
		cfg.User, cfg.Password = superUser, superPassword
	}
	for _, p := range params {
		k, v, _ := strings.Cut(p, "=")
		switch k {
		case "user":
			cfg.User = v
		case "database":
			cfg.Database = v
		case "password":
			cfg.Password = v
		case "minor":
			n, _ := strconv.Atoi(v)
			cfg.Minor = uint16(n)
		default:
			cfg.Params = append(cfg.Params, k, v)
		}
	}
	return cfg
}

// show adds messages to the transcript.
func (r *runner) show(ms []pgtest.Message) {
	for _, m := range ms {
		line := pgtest.DescribeWith(m, pgtest.Mask{Identity: true, Source: true})
		line = r.rename(line)
		for _, k := range r.s.masks {
			line = k.re.ReplaceAllString(line, k.to)
		}
		if line == "" {
			continue
		}
		if len(line) > 2000 {
			line = fmt.Sprintf("%s… (%d bytes, sum %x)", line[:200], len(line), sum(line))
		}
		r.out = append(r.out, r.current+"< "+line)
	}
}

// userOID finds the OIDs of things that users made, in what RowDescription and
// ParameterDescription print.
var userOID = regexp.MustCompile(`\b(table|type) (\d{5,})|^(ParameterDescription.*)$`)

// fiveDigits is such an OID alone.
var fiveDigits = regexp.MustCompile(`\b\d{5,}\b`)

// rename gives OIDs of users' things the numbers of their first appearance, so that two runs
// agree exactly if they agree on which is which.
func (r *runner) rename(line string) string {
	name := func(oid string) string {
		if n, err := strconv.Atoi(oid); err != nil || n < 16384 {
			return oid
		}
		if r.oids[oid] == "" {
			r.oids[oid] = fmt.Sprintf("#%d", len(r.oids)+1)
		}
		return r.oids[oid]
	}
	return userOID.ReplaceAllStringFunc(line, func(m string) string {
		return fiveDigits.ReplaceAllStringFunc(m, name)
	})
}

// sum is a short checksum of a long line.
func sum(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// readText recognises a unit that its text says is a read; it decides nothing but what is counted.
var readText = regexp.MustCompile(`(?is)^\s*(select|values|table|with)\b`)

// step carries out one line.
func (r *runner) step(st step) error {
	switch {
	case strings.HasPrefix(st.word, "@"):
		r.current = st.word[1:]
		return nil
	case st.word == "":
		if len(r.queue) == 0 && !r.raw && r.ready == 0 {
			r.mark = len(r.out)
			return nil
		}
		err := r.readReady(r.ready)
		r.mark = len(r.out)
		return err
	}
	if ok, err := r.control(st); ok || err != nil {
		return err
	}
	m, err := message(st)
	if err != nil {
		return err
	}
	if c := r.clients[r.current]; m.Type == 'Q' || m.Type == 'P' {
		text := strings.Trim(string(m.Body), "\x00")
		if (c == nil || c.Tx == 'I' || c.Tx == 0) && readText.MatchString(text) {
			r.reads++
		}
	}
	r.queue = append(r.queue, m)
	if m.Type == 'Q' || m.Type == 'F' || m.Type == 'S' {
		r.ready++
	}
	return nil
}

// control carries out a line that is no message.
func (r *runner) control(st step) (bool, error) {
	switch st.word {
	case "connect":
		return true, r.connect(words(st.rest))
	case "until":
		return true, r.read(func(c *pgtest.RawClient) ([]pgtest.Message, error) { return c.ReadUntilType([]byte(st.rest)...) })
	case "ready":
		n, err := strconv.Atoi(st.rest)
		if err != nil {
			return true, err
		}
		r.ready = 0
		return true, r.readReady(n)
	case "end":
		r.ready = 0
		err := r.read((*pgtest.RawClient).ReadToEnd)
		r.out = append(r.out, r.current+"< closed")
		delete(r.clients, r.current)
		return true, err
	case "nothing":
		r.ready = 0
		return true, r.send()
	case "halfclose":
		if err := r.send(); err != nil {
			return true, err
		}
		c, err := r.client()
		if err != nil {
			return true, err
		}
		return true, c.CloseWrite()
	case "cancel":
		return true, r.cancel()
	case "raw":
		if err := r.send(); err != nil {
			return true, err
		}
		c, err := r.client()
		if err != nil {
			return true, err
		}
		r.raw = true
		text, err := text(st.rest)
		if err != nil {
			return true, err
		}
		return true, c.SendRaw([]byte(text))
	case "want":
		if got := strings.Join(r.out[r.mark:], "\n"); !strings.Contains(got, st.rest) {
			return true, fmt.Errorf("%q is not in:\n%s", st.rest, got)
		}
		return true, nil
	}
	return false, nil
}

// connect logs a client in and shows what the server said.
func (r *runner) connect(params []string) error {
	if r.clients[r.current] != nil {
		return errors.New("this client is connected")
	}
	c, err := pgtest.Dial(r.config(params))
	if err != nil {
		return err
	}
	r.clients[r.current] = c
	ms, err := c.Login()
	r.show(ms)
	var refused *pgtest.ServerError
	if errors.As(err, &refused) {
		delete(r.clients, r.current)
		_ = c.Close()
		return nil
	}
	return err
}

// send writes the queue.
func (r *runner) send() error {
	c, err := r.client()
	if err != nil {
		return err
	}
	ms := r.queue
	r.queue = nil
	if len(ms) == 0 {
		return nil
	}
	return c.Send(ms...)
}

// read writes the queue and reads what a function says.
func (r *runner) read(f func(*pgtest.RawClient) ([]pgtest.Message, error)) error {
	if err := r.send(); err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	ms, err := f(c)
	r.show(ms)
	return err
}

// readReady writes the queue and reads that many ReadyForQuery.
func (r *runner) readReady(n int) error {
	r.ready, r.raw = 0, false
	if n == 0 {
		return r.send()
	}
	return r.read(func(c *pgtest.RawClient) ([]pgtest.Message, error) { return c.ReadUntilReady(n) })
}

// cancel sends the queue and then CancelRequests until the client has its ReadyForQuery: one that
// comes before the statement has begun does nothing, as PostgreSQL says.
func (r *runner) cancel() error {
	if err := r.send(); err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := c.Cancel(); err != nil {
				failed <- err
				return
			}
		}
	}()
	ms, err := c.ReadUntilReady(max(r.ready, 1))
	close(done)
	r.ready = 0
	r.show(ms)
	return errors.Join(err, <-failed)
}

// words splits at spaces, with Go strings kept whole.
func words(s string) []string {
	var list []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		end := strings.IndexByte(s, ' ')
		// A quoted part may stand alone or behind "name=".
		if q := strings.IndexByte(s, '"'); q >= 0 && (end < 0 || q < end) {
			if quoted, err := strconv.QuotedPrefix(s[q:]); err == nil {
				v, _ := strconv.Unquote(quoted)
				list = append(list, s[:q]+v)
				s = s[q+len(quoted):]
				continue
			}
		}
		if end < 0 {
			end = len(s)
		}
		list = append(list, s[:end])
		s = s[end:]
	}
	return list
}

// text is the rest of a line: a Go string, or as it stands.
func text(s string) (string, error) {
	if strings.HasPrefix(s, `"`) && strings.HasSuffix(s, `"`) && len(s) > 1 {
		return strconv.Unquote(s)
	}
	return s, nil
}

// name is a name in a script; "-" is the empty one.
func name(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// message builds the message of a line.
func message(st step) (pgtest.Message, error) {
	rest, err := text(st.rest)
	if err != nil {
		return pgtest.Message{}, fmt.Errorf("unquote: %w", err)
	}
	f := words(st.rest)
	need := func(n int) bool { return len(f) >= n }
	switch {
	case st.word == "Q":
		return pgtest.Query(rest), nil
	case st.word == "P" && need(1):
		return parse(st.rest)
	case st.word == "B" && need(2):
		return bind(f)
	case (st.word == "D" || st.word == "C") && need(2):
		return pgtest.Msg(st.word[0], f[0][0], name(f[1])), nil
	case st.word == "E" && need(2):
		n, err := strconv.ParseInt(f[1], 10, 32)
		return pgtest.Execute(name(f[0]), int32(n)), err
	case st.word == "H":
		return pgtest.Flush(), nil
	case st.word == "S":
		return pgtest.Sync(), nil
	case st.word == "X":
		return pgtest.Terminate(), nil
	case st.word == "d":
		return pgtest.CopyData(rest), nil
	case st.word == "c":
		return pgtest.CopyDone(), nil
	case st.word == "f":
		return pgtest.CopyFail(rest), nil
	case st.word == "F" && need(2):
		return call(f)
	}
	return pgtest.Message{}, errors.New("unknown line")
}

// parse builds a Parse: NAME (OID,OID) SQL, the list may be missing.
func parse(rest string) (pgtest.Message, error) {
	stmt, sql, _ := strings.Cut(rest, " ")
	sql = strings.TrimSpace(sql)
	var oids []uint32
	if strings.HasPrefix(sql, "(oids ") {
		list, after, _ := strings.Cut(sql[len("(oids "):], ")")
		for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return pgtest.Message{}, err
			}
			oids = append(oids, uint32(n))
		}
		sql = strings.TrimSpace(after)
	}
	sql, err := text(sql)
	return pgtest.Parse(name(stmt), sql, oids...), err
}

// bind builds a Bind.
func bind(f []string) (pgtest.Message, error) {
	fields := []any{name(f[0]), name(f[1])}
	var pf, rf []int16
	var args []pgtest.Value
	for _, a := range f[2:] {
		var list *[]int16
		switch {
		case strings.HasPrefix(a, "pf="):
			list = &pf
		case strings.HasPrefix(a, "rf="):
			list = &rf
		default:
			v, err := argument(a)
			if err != nil {
				return pgtest.Message{}, err
			}
			args = append(args, v)
			continue
		}
		for _, s := range strings.Split(a[3:], ",") {
			n, err := strconv.ParseInt(s, 10, 16)
			if err != nil {
				return pgtest.Message{}, err
			}
			*list = append(*list, int16(n))
		}
	}
	formats := func(l []int16) {
		fields = append(fields, uint16(len(l)))
		for _, v := range l {
			fields = append(fields, v)
		}
	}
	formats(pf)
	fields = append(fields, uint16(len(args)))
	for _, a := range args {
		fields = append(fields, a)
	}
	formats(rf)
	return pgtest.Msg('B', fields...), nil
}

// argument is one value: NULL, x'hex', or text.
func argument(a string) (pgtest.Value, error) {
	switch {
	case a == "NULL":
		return nil, nil
	case strings.HasPrefix(a, "x'") && strings.HasSuffix(a, "'"):
		b, err := hex.DecodeString(a[2 : len(a)-1])
		return append(pgtest.Value{}, b...), err
	}
	return append(pgtest.Value{}, a...), nil
}

// call builds a FunctionCall: OID RESULTFORMAT ARG …; x'hex' arguments are binary, others text.
func call(f []string) (pgtest.Message, error) {
	oid, err1 := strconv.ParseUint(f[0], 10, 32)
	rf, err2 := strconv.ParseInt(f[1], 10, 16)
	if err := errors.Join(err1, err2); err != nil {
		return pgtest.Message{}, err
	}
	fields := []any{uint32(oid), uint16(len(f) - 2)}
	var values []any
	for _, a := range f[2:] {
		v, err := argument(a)
		if err != nil {
			return pgtest.Message{}, err
		}
		format := uint16(0)
		if strings.HasPrefix(a, "x'") {
			format = 1
		}
		fields = append(fields, format)
		values = append(values, v)
	}
	fields = append(append(append(fields, uint16(len(values))), values...), int16(rf))
	return pgtest.Msg('F', fields...), nil
}
