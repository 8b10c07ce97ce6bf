package catalog

import "strings"

// effect is what a built-in function does to the session, beside its result.
type effect uint8

// The effects.
const (
	effectNone      effect = iota
	effectSetConfig        // changes a setting: for good unless its third argument is true
	effectSession          // leaves state in the session that only its end removes
	effectLock             // takes or gives back locks of the session, which DISCARD ALL gives back
	effectNextval          // advances or sets a sequence, which currval then shows
	effectCurrval          // shows what the session's last nextval gave
	effectQuery            // runs its first argument as a query
)

// flags returns what a call of a function with that effect does by itself, whatever its
// arguments are.
func (e effect) flags() refFlags {
	switch e {
	case effectSetConfig, effectSession, effectQuery:
		return codeOpaque | codeLasting
	case effectLock:
		return codeOpaque
	case effectNextval:
		return codeNextval
	case effectCurrval:
		return codeCurrval
	}
	return 0
}

// sessionEffect returns the effect of the built-in function of that name. Advisory locks
// that belong to the transaction leave nothing; temporary replication slots, the session's
// replication origin and a backup go with the session (sections 9.27 and 26.3).
func sessionEffect(name string) effect {
	switch name {
	case "set_config":
		return effectSetConfig
	case "nextval", "setval":
		return effectNextval
	case "currval", "lastval":
		return effectCurrval
	case "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat":
		return effectQuery
	case "setseed",
		"pg_backup_start", "pg_start_backup", "pg_backup_stop", "pg_stop_backup",
		"pg_replication_origin_session_setup", "pg_replication_origin_session_reset",
		"pg_create_physical_replication_slot", "pg_create_logical_replication_slot",
		"pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot":
		return effectSession
	}
	if strings.HasPrefix(name, "pg_advisory_") || strings.HasPrefix(name, "pg_try_advisory_") {
		if !strings.Contains(name, "_xact_") {
			return effectLock
		}
	}
	return effectNone
}

// volatileRead tells whether a built-in function is volatile as initdb makes it and yet only
// reads: what is sent to a standby all the same.
func volatileRead(name string) bool {
	switch name {
	case "random", "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7",
		"pg_sleep", "pg_sleep_for", "pg_sleep_until", "current_query", "lo_get",
		"pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size", "pg_database_size", "pg_tablespace_size",
		"pg_partition_tree", "pg_partition_ancestors":
		return true
	}
	return false
}

// foreignWord tells whether a word is one that a body in another language needs to reach the session: the ways to
// run SQL of PL/Python, PL/Perl, PL/Tcl, PL/v8 and their kin, and data that outlives a call.
func foreignWord(word string) bool {
	switch word {
	case "plpy", "plv8", "SPI", "GD", "SD", "_SHARED", "eval", "elog":
		return true
	}
	return strings.HasPrefix(word, "spi_") || strings.HasPrefix(word, "pg_spi")
}

// resettable tells whether DISCARD ALL leaves nothing of a setting, which is so for the server's own but for the seed
// of random. The names of custom settings ("a.b") stay on a connection for as long as it is open, with an empty value.
func resettable(setting string) bool {
	return setting != "" && setting != "seed" && !strings.Contains(setting, ".")
}

// scanForeign looks through a body in a language that is not SQL for words by which it could
// leave state in the session.
func scanForeign(src []byte, out *code) {
	for i := 0; i < len(src); {
		n := i
		for n < len(src) && isIdentByte(src[n], n == i) {
			n++
		}
		if n == i {
			i++
			continue
		}
		word := string(src[i:n])
		if foreignWord(word) || sessionEffect(lowerASCII(word)) != effectNone {
			out.flags |= codeOpaque | codeLasting
			return
		}
		i = n
	}
}
