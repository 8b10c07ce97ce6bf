package console

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Source is what is shown. Its methods may be called by many goroutines and wait for nobody.
type Source interface {
	State() State
	Settings() []Setting
}

// Control carries out orders. An error that is no *Error is told as it is.
type Control interface {
	Carry(ctx context.Context, user string, o Order) error
}

// Config is what a Console is built from.
type Config struct {
	Source  Source
	Control Control
	Version string // what SHOW VERSION says
	// Period is what averages are over.
	Period time.Duration
}

// DefaultConfig is every value that has a default.
func DefaultConfig() Config { return Config{Period: time.Minute} }

// Validate returns everything that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Source == nil || c.Control == nil {
		errs = append(errs, errors.New("a part is missing"))
	}
	if c.Period <= 0 {
		errs = append(errs, fmt.Errorf("period: %v: must be above zero", c.Period))
	}
	return errors.Join(errs...)
}

// Role is what a user may do.
type Role string

// The roles.
const (
	RoleAdmin Role = "admin" // everything
	RoleStats Role = "stats" // look
)

// Console answers commands. Its methods may be called by many goroutines.
type Console struct {
	cfg   Config
	meter meter
}

// New is a console.
func New(cfg Config) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("console configuration: %w", err)
	}
	return &Console{cfg: cfg}, nil
}

// Run samples what averages are made of, until ctx ends.
func (c *Console) Run(ctx context.Context) error { return c.meter.run(ctx, c.cfg.Period, c.cfg.Source) }

// Command is a command that was understood.
type Command struct {
	Columns []Column // nil: it returns no rows
	Waits   bool     // it may take long
	run     func(ctx context.Context) (Result, error)
}

// Run carries the command out.
func (c *Command) Run(ctx context.Context) (Result, error) { return c.run(ctx) }

// Column is a column of a table.
type Column struct {
	Name string
	Type uint32 // OID
}

// OIDs of the types of columns.
const (
	typeText    = 25
	typeInt4    = 23
	typeInt8    = 20
	typeNumeric = 1700
)

// Result is what a command returned.
type Result struct {
	Rows   [][][]byte // text; nil is NULL
	Tag    string
	Notice string // with its detail
	Detail string
}

// Error is what an administrator hears.
type Error struct{ Code, Message, Detail, Hint string }

// Error is the message.
func (e *Error) Error() string { return e.Message }

// The SQLSTATEs of Errors.
const (
	codeSyntax    = "42601"
	codeForbidden = "42501"
	codeUnknown   = "42704"
)

// Read understands the commands of a text, which are separated by semicolons, for a user of that role. The
// error is an *Error; nothing was carried out.
func (c *Console) Read(user string, role Role, text string) ([]Command, error) {
	words, err := scan(text)
	if err != nil {
		return nil, err
	}
	var out []Command
	for _, ws := range split(words) {
		cmd, err := c.command(user, role, ws)
		if err != nil {
			return nil, err
		}
		out = append(out, *cmd)
	}
	return out, nil
}

// command understands one command.
func (c *Console) command(user string, role Role, ws []word) (*Command, error) {
	switch verb := ws[0].upper(); verb {
	case "SHOW":
		return c.show(ws)
	case "HELP":
		if len(ws) > 1 {
			return nil, unknown(ws)
		}
		return help(), nil
	case "WHO":
		return c.who(ws)
	default:
		o, err := parseOrder(ws)
		if err != nil {
			return nil, err
		}
		if role != RoleAdmin {
			return nil, &Error{
				Code: codeForbidden, Message: "permission denied for command " + verb,
				Detail: fmt.Sprintf("User %q has the role stats, which may look only.", user),
				Hint:   "admin.users gives the role admin.",
			}
		}
		return &Command{Waits: true, run: func(ctx context.Context) (Result, error) {
			if err := c.cfg.Control.Carry(ctx, user, o); err != nil {
				return Result{}, err
			}
			return Result{Tag: verb}, nil
		}}, nil
	}
}

// unknown is a command that is not understood.
func unknown(ws []word) *Error {
	return &Error{Code: codeSyntax, Message: fmt.Sprintf("invalid command '%s'", joined(ws)), Hint: "SHOW HELP lists what there is."}
}
