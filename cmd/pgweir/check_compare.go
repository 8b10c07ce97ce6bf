package main

import (
	"maps"
	"slices"
	"strings"
)

// answerSettings are settings that change what a statement answers: where nodes differ, so do
// their answers.
var answerSettings = []string{
	"TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "lc_messages",
	"lc_monetary", "lc_numeric", "lc_time", "default_text_search_config", "search_path",
	"standard_conforming_strings", "backslash_quote", "escape_string_warning", "array_nulls",
	"xmlbinary", "xmloption", "quote_all_identifiers", "row_security",
	"default_transaction_isolation", "default_transaction_deferrable", "default_transaction_read_only",
	"client_encoding", "timezone_abbreviations", "transform_null_equals", "statement_timeout",
	"lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
}

// standbyAtLeast are settings of which a standby must have at least the primary's, or it stops
// replay when the primary's is raised.
var standbyAtLeast = []string{
	"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction",
}

// agreement judges that a statement gets the same answer wherever it runs.
func (j *judge) agreement() {
	answered := slices.DeleteFunc(slices.Clone(j.all), func(f *facts) bool { return f.failure != nil })
	if len(answered) < 2 {
		return
	}
	if v := distinct(answered, (*facts).release); len(v) > 1 {
		j.add("", "version", Advice, "bring all nodes to the same minor release", "the nodes run different releases: %s", spread(v))
	}
	var differ []string
	for _, name := range answerSettings {
		if v := distinct(answered, func(f *facts) string { return f.settings[name] }); len(v) > 1 {
			differ = append(differ, name)
			j.add("", "settings", Advice, "set it alike on every node, or with ALTER DATABASE or ALTER ROLE on the primary", "%s differs: %s", name, spread(v))
		}
	}
	if len(differ) == 0 {
		j.add("", "settings", Good, "", "settings that change answers are the same on every node")
	}
	if v := distinct(answered, func(f *facts) string { return f.settings["shared_preload_libraries"] + " " }); len(v) > 1 {
		j.add("", "libraries", Advice, "load the same libraries on every node", "shared_preload_libraries differs: %s", spread(v))
	}
}

// files judges collations and extensions, which live in files that replication does not copy.
func (j *judge) files() {
	answered := slices.DeleteFunc(slices.Clone(j.all), func(f *facts) bool { return f.failure != nil })
	for _, provider := range []string{"libc", "icu"} {
		if v := distinct(answered, func(f *facts) string { return f.collations[provider] }); len(v) > 1 {
			j.add("", "collations", Bad, "run the same release of the operating system's libraries on every node; until then indexes on text may miss rows on some of them",
				"%s sorts differently: version %s", provider, spread(v))
		}
	}
	for _, f := range answered {
		if len(f.stale) > 0 {
			j.add(f.node.Name, "collations", Bad, "rebuild indexes on text and run ALTER DATABASE … REFRESH COLLATION VERSION on the primary",
				"the library's collation version is not the one that was recorded for %s", strings.Join(f.stale, ", "))
		}
		var missing []string
		for _, ext := range slices.Sorted(maps.Keys(f.installed)) {
			if v := f.installed[ext]; !f.available[ext+" "+v] {
				missing = append(missing, ext+" "+v)
			}
		}
		switch {
		case len(missing) > 0:
			j.add(f.node.Name, "extensions", Bad, "install the packages of these versions on the node", "files of extensions are missing: %s", strings.Join(missing, ", "))
		case len(f.installed) > 0:
			j.add(f.node.Name, "extensions", Good, "", "files of every extension in database %s are here", j.cluster.Monitor.Database)
		}
	}
}

// standbySettings judges the settings that a standby must have at least as large as its primary.
func (j *judge) standbySettings() {
	i := slices.IndexFunc(j.all, func(f *facts) bool { return f.failure == nil && !f.inRecovery })
	if i < 0 {
		return
	}
	primary := j.all[i]
	for _, f := range j.all {
		if f.failure != nil || !f.inRecovery {
			continue
		}
		for _, name := range standbyAtLeast {
			if f.number(name) < primary.number(name) {
				j.add(f.node.Name, "settings", Bad, "raise it on the standby, always before the primary", "%s is %d, less than the primary's %d: replay stops and the node cannot be promoted",
					name, f.number(name), primary.number(name))
			}
		}
	}
}
