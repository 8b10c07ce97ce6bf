package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgpassfile"
)

// Secret is text that no log, message or listing shows. Convert it to string to use it.
type Secret string

// String hides the secret.
func (s Secret) String() string { return hidden }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return hidden }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// reveal is the text itself, for comparing two configurations.
func (s Secret) reveal() string { return string(s) }

// hidden stands for a secret wherever one would be shown.
const hidden = "***"

// Monitor is how pgweir itself logs in to the nodes of a cluster.
type Monitor struct {
	User            string
	Database        string
	Password        Secret
	PasswordFile    string
	PasswordCommand []string
	PasswordTTL     time.Duration // how long the answer of PasswordCommand is used
	PassFile        string        // passfile; "": PGPASSFILE, else ~/.pgpass
}

// PasswordSource knows the monitor's password now. A changed file is seen at the next call; a
// command runs again when its answer is older than the configured time. Safe for any goroutine.
type PasswordSource struct {
	monitor Monitor
	// turn holds one token: who took it may run the command and write what follows.
	turn   chan struct{}
	answer string
	until  time.Time
}

// NewPasswordSource returns the source of m's password.
func NewPasswordSource(m Monitor) *PasswordSource {
	return &PasswordSource{monitor: m, turn: make(chan struct{}, 1)}
}

// Password is the password to log in to the node at host:port with, "" for host where any node
// of the cluster will do. It is "" where none is known, which is right for servers that ask for
// none. An error says what was tried.
func (s *PasswordSource) Password(ctx context.Context, host string, port int) (string, error) {
	m := s.monitor
	switch {
	case m.Password != "":
		return string(m.Password), nil
	case m.PasswordFile != "":
		text, err := os.ReadFile(m.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("read password_file: %w", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	case len(m.PasswordCommand) > 0:
		return s.ask(ctx)
	default:
		return fromPassFile(m, host, port)
	}
}

// ask runs the command unless its last answer still holds. Those who ask at the same time
// wait for one answer.
func (s *PasswordSource) ask(ctx context.Context) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("wait for password_command: %w", context.Cause(ctx))
	}
	if time.Now().Before(s.until) {
		return s.answer, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	argv := s.monitor.PasswordCommand
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if first, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n"); first != "" {
			return "", fmt.Errorf("run password_command %s: %w: %s", argv[0], err, first)
		}
		return "", fmt.Errorf("run password_command %s: %w", argv[0], err)
	}
	answer := strings.TrimRight(out.String(), "\r\n")
	if answer == "" {
		return "", fmt.Errorf("run password_command %s: it printed nothing", argv[0])
	}
	s.answer, s.until = answer, time.Now().Add(s.monitor.PasswordTTL)
	return answer, nil
}

// commandTimeout bounds a password_command.
const commandTimeout = 10 * time.Second

// fromPassFile looks the password up as libpq does; a file that is not there knows none.
func fromPassFile(m Monitor, host string, port int) (string, error) {
	name := m.PassFile
	if name == "" {
		name = os.Getenv("PGPASSFILE")
	}
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil //nolint:nilerr // without a home there is no file to look into
		}
		name = home + "/.pgpass"
	}
	file, err := pgpassfile.ReadPassfile(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read passfile: %w", err)
	}
	if host == "" {
		return anyHost(file, m), nil
	}
	return file.FindPassword(host, strconv.Itoa(port), m.Database, m.User), nil
}

// anyHost is the first password of the file for the monitor on any host: the nodes of a cluster
// share their roles.
func anyHost(file *pgpassfile.Passfile, m Monitor) string {
	takes := func(pattern, s string) bool { return pattern == "*" || pattern == s }
	for _, e := range file.Entries {
		if takes(e.Username, m.User) && takes(e.Database, m.Database) {
			return e.Password
		}
	}
	return ""
}
