// Command pgweir answers the question "what does a person type, and what starts in which
// order?": it reads the configuration and wires the packages that do the work.
//
//	main.go         run(ctx, args, stdin, stdout, stderr): which sub-command is meant
//	serve.go …      one file per sub-command
//	config.go       Config, what a configuration says, and Settings, what holds for one session
//	config_*.go     from YAML, environment and flags to a Config, every problem at once
//	reload.go       what a changed configuration can change while the process runs
//
// A configuration is read in layers, each over the one before: built-in defaults, the file,
// variables named PGWEIR_…, flags. All layers are laid over each other as one YAML tree before
// anything is decoded, so a value is checked in the same way wherever it came from, and every
// problem names its place: file:line:column, the variable or the flag.
package main
