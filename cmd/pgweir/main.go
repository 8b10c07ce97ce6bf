package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	os.Exit(start())
}

// start runs the command with the process's own surroundings and returns its exit status.
// The first SIGINT or SIGTERM ends the context of a sub-command, serve handles more itself.
func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exitStatus(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr), os.Stderr)
}

// command is one sub-command. Its function parses its own arguments and returns when it is
// done or ctx ends.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error
}

// commands lists the sub-commands in the order of the help.
func commands() []command {
	return []command{
		{"serve", "run the proxy", runServe},
		{"demo", "a real primary and two standbys from the PostgreSQL on this machine, the proxy in front", runDemo},
		{"check", "check a configuration and every node it names", runCheck},
		{"setup-sql", "print the SQL that makes the monitor's role", runSetupSQL},
		{"route", "for each statement of a file: where it would go and why", runRoute},
		{"config", "config print: every effective value and where it came from", runConfig},
		{"version", "print version and build", runVersion},
	}
}

// run is the whole program: args without the program's name. Errors are not printed yet:
// exitStatus does that.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		usage(stderr)
		return &usageError{}
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return nil
	case "-V", "--version":
		name = "version"
	}
	var names []string
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, args[1:], stdin, stdout, stderr)
		}
		names = append(names, c.name)
	}
	return &usageError{fmt.Sprintf("unknown command %q%s", name, didYouMean(name, names))}
}

// usage prints the list of sub-commands.
func usage(w io.Writer) {
	fmt.Fprint(w, "pgweir sends each statement to the PostgreSQL node that should answer it.\n\nUsage: pgweir COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\npgweir COMMAND -h lists the flags of a command.\n")
}

// usageError says that the command line was not understood; exit status 2.
type usageError struct{ message string }

// Error is the message, with where to look.
func (e *usageError) Error() string {
	if e.message == "" {
		return ""
	}
	return e.message + "\nSee pgweir -h."
}

// statusError ends the process with a status after everything has been said.
type statusError struct{ status int }

// Error is for tests: exitStatus prints nothing for it.
func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// exitStatus prints err, if it has something to say, and returns the status to exit with.
func exitStatus(err error, stderr io.Writer) int {
	var usage *usageError
	var status *statusError
	var problems Problems
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &status):
		return status.status
	case errors.As(err, &usage):
		if msg := usage.Error(); msg != "" {
			fmt.Fprintln(stderr, "pgweir: "+msg)
		}
		return 2
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems.Error())
		fmt.Fprintf(stderr, "pgweir: %s in the configuration; nothing was started\n", plural(len(problems), "problem"))
		return 1
	default:
		fmt.Fprintln(stderr, "pgweir: "+err.Error())
		return 1
	}
}

// plural is "1 problem" or "2 problems".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// newFlagSet returns an empty set of flags for a sub-command. parseFlags reads it.
func newFlagSet(name, synopsis string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: pgweir %s %s\n\n", name, synopsis)
		fs.PrintDefaults()
	}
	return fs
}

// parseFlags parses args; at most most arguments may be left over. -h prints the flags to
// stdout and returns flag.ErrHelp.
func parseFlags(fs *flag.FlagSet, args []string, most int, stdout io.Writer) error {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(stdout)
		fs.Usage()
		return err
	case err != nil:
		msg := err.Error()
		if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
			var names []string
			fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
			msg = fmt.Sprintf("unknown flag --%s", strings.TrimPrefix(name, "-"))
			if near := nearest(name, names); near != "" {
				msg += "; did you mean --" + near + "?"
			}
		}
		return &usageError{fs.Name() + ": " + msg}
	case fs.NArg() > most:
		return &usageError{fmt.Sprintf("%s: unexpected argument %q", fs.Name(), fs.Arg(most))}
	}
	return nil
}
