package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of PgBouncer on the fields of its file, in bytes between the quotes.
const (
	maxUserField   = 127
	maxSecretField = 2047
)

// maxUserlist is the largest file that is read, in bytes.
const maxUserlist = 64 << 20

// settled is how old a file's time of change must be before another change is sure to move it.
const settled = 100 * time.Millisecond

// Userlist is the users of a file in the format of PgBouncer's auth_file. The file is looked at
// again at every Lookup and read when it has changed; a file that cannot be read or is
// malformed leaves the users as they were, and is logged once per change.
type Userlist struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[userlistView]
	loading sync.Mutex
}

// userlistView is the file as it was read. It is immutable.
type userlistView struct {
	users map[string]Secret
	info  os.FileInfo // nil: there was no such file
	fresh bool        // it changed so shortly before it was read that the next change may not show
}

// NewUserlist reads the file. An error names the file and the line.
func NewUserlist(path string, log *slog.Logger) (*Userlist, error) {
	u := &Userlist{path: path, log: log}
	view, err := readUserlist(path, nil)
	if err != nil {
		return nil, err
	}
	u.current.Store(view)
	return u, nil
}

// Lookup is the secret of the user in the file. A user with an empty secret is none.
func (u *Userlist) Lookup(_ context.Context, user string) (Secret, error) {
	u.reload()
	secret := u.current.Load().users[user]
	if secret.IsZero() {
		return Secret{}, ErrNoUser
	}
	return secret, nil
}

// Len is the number of users.
func (u *Userlist) Len() int { return len(u.current.Load().users) }

// reload reads the file again if it has changed. Whoever comes while another reads uses the
// present users.
func (u *Userlist) reload() {
	old := u.current.Load()
	info, err := os.Stat(u.path)
	if err == nil && old.info != nil && !old.fresh && same(info, old.info) || err != nil && old.info == nil {
		return
	}
	if !u.loading.TryLock() {
		return
	}
	defer u.loading.Unlock()
	view, err := readUserlist(u.path, old)
	if err != nil {
		if info == nil || !same(info, old.info) {
			u.log.Warn("reading userlist again", "file", u.path, "error", err)
		}
		view = &userlistView{users: old.users, info: info, fresh: info != nil && recent(info)}
	}
	u.current.Store(view)
}

// same says whether two looks at a file show no change.
func same(a, b os.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// readUserlist reads the whole file; secrets that did not change are taken over from old.
func readUserlist(path string, old *userlistView) (*userlistView, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading userlist: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading userlist: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxUserlist+1))
	if err != nil {
		return nil, fmt.Errorf("reading userlist: %w", err)
	}
	if len(text) > maxUserlist {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxUserlist)
	}
	users, err := parseUserlist(path, string(text))
	if err != nil {
		return nil, err
	}
	if old != nil {
		for name, s := range users {
			if before, ok := old.users[name]; ok && s.kind == secretPlain && before.kind == secretPlain && before.text == s.text {
				users[name] = before
			}
		}
	}
	return &userlistView{users: users, info: info, fresh: recent(info)}, nil
}

// recent says whether a file was changed so shortly ago that another change may not show.
func recent(info os.FileInfo) bool { return time.Since(info.ModTime()) < settled }

// userlistParser walks through the text of a file.
type userlistParser struct {
	path string
	text string
	at   int
	errs []error
}

// parseUserlist reads PgBouncer's format: a user and a secret in double quotes, the first at the
// beginning of a line, quotes within doubled, the rest of the line ignored; empty lines and
// lines that begin with a semicolon are skipped. Of a user who comes twice the last counts.
func parseUserlist(path, text string) (map[string]Secret, error) {
	p := userlistParser{path: path, text: text}
	users := make(map[string]Secret)
	for p.start() {
		line := p.at
		user, ok := p.field("user name", maxUserField)
		if !ok {
			break
		}
		for p.at < len(p.text) && p.text[p.at] != '"' { // PgBouncer looks for it on later lines, too
			p.at++
		}
		text, ok := p.field("secret", maxSecretField)
		if !ok {
			break
		}
		secret, err := ParseSecret(text)
		if err != nil {
			p.fail(line, fmt.Sprintf("user %q: %v", user, err))
		}
		users[user] = secret
		p.skipLine()
	}
	return users, errors.Join(p.errs...)
}

// start skips to the next entry; false at the end or at an error.
func (p *userlistParser) start() bool {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			p.at++
		case c == ';':
			p.skipLine()
		case c == '"':
			return true
		default:
			p.fail(p.at, `expected a user name in double quotes, or ";" for a comment`)
			return false
		}
	}
	return false
}

// skipLine moves to the end of the line.
func (p *userlistParser) skipLine() {
	if i := strings.IndexByte(p.text[p.at:], '\n'); i >= 0 {
		p.at += i
	} else {
		p.at = len(p.text)
	}
}

// field reads a quoted field.
func (p *userlistParser) field(what string, limit int) (string, bool) {
	begin := p.at
	if begin >= len(p.text) {
		p.fail(begin, "expected a "+what+" in double quotes")
		return "", false
	}
	p.at++
	for p.at < len(p.text) {
		switch {
		case p.text[p.at] == 0:
			p.fail(p.at, "a byte of value 0 in the "+what)
			return "", false
		case p.text[p.at] != '"':
			p.at++
		case strings.HasPrefix(p.text[p.at:], `""`):
			p.at += 2
		case p.at-begin-1 > limit:
			p.fail(begin, fmt.Sprintf("%s of more than %d bytes", what, limit))
			return "", false
		default:
			p.at++
			return strings.ReplaceAll(p.text[begin+1:p.at-1], `""`, `"`), true
		}
	}
	p.fail(begin, "the "+what+" has no closing double quote")
	return "", false
}

// fail notes what is wrong on the line of an offset.
func (p *userlistParser) fail(at int, problem string) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.path, 1+strings.Count(p.text[:at], "\n"), problem))
}
