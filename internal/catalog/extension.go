package catalog

import "pgweir/router"

// memberFact is what is known of a function of a contrib module beyond its declaration.
type memberFact struct {
	verdict router.NameVerdict // VerdictUnknown: as declared
	bits    bits
}

// contribFunction returns what the documentation of a contrib module (Appendix F) says of a
// function that its declaration does not: volatile ones that only compute, ones that look
// at the connection to one node, ones that leave state in the session.
func contribFunction(extension, name string) memberFact {
	switch extension {
	case "pgcrypto":
		switch name {
		case "gen_random_bytes", "gen_random_uuid", "gen_salt",
			"pgp_sym_encrypt", "pgp_sym_encrypt_bytea", "pgp_pub_encrypt", "pgp_pub_encrypt_bytea":
			return memberFact{verdict: router.VerdictRead}
		}
	case "uuid-ossp":
		switch name {
		case "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4":
			return memberFact{verdict: router.VerdictRead}
		}
	case "tablefunc":
		if name == "normal_rand" {
			return memberFact{verdict: router.VerdictRead}
		}
	case "sslinfo":
		return memberFact{verdict: router.VerdictNode}
	case "pg_stat_statements":
		if name == "pg_stat_statements" || name == "pg_stat_statements_info" {
			return memberFact{verdict: router.VerdictNode}
		}
	case "pg_buffercache":
		switch name {
		case "pg_buffercache_pages", "pg_buffercache_summary", "pg_buffercache_usage_counts":
			return memberFact{verdict: router.VerdictNode}
		}
	case "dblink":
		switch name {
		case "dblink_connect", "dblink_connect_u":
			return memberFact{bits: bitOpaque | bitLasting} // a named connection stays
		}
	case "pg_trgm":
		if name == "set_limit" {
			return memberFact{bits: bitOpaque | bitLasting}
		}
	case "isn":
		if name == "isn_weak" || name == "weak_input_status" {
			return memberFact{verdict: router.VerdictPrimary, bits: bitOpaque | bitLasting} // declared immutable
		}
	case "autoinc":
		return memberFact{bits: bitNextval}
	}
	return memberFact{}
}

// nodeView tells whether a view of pg_catalog describes one node: its statistics, locks,
// settings, files or backends (sections 28.2 and 54.1). The classification does not wait
// for what the functions below it say, so that views of a newer server are known as well.
func nodeView(name string) bool {
	for _, prefix := range []string{"pg_stat_", "pg_statio_", "pg_shmem_", "pg_replication_"} {
		if len(name) > len(prefix) && name[:len(prefix)] == prefix {
			return true
		}
	}
	switch name {
	case "pg_locks", "pg_settings", "pg_file_settings", "pg_config", "pg_cursors", "pg_prepared_statements",
		"pg_prepared_xacts", "pg_hba_file_rules", "pg_ident_file_mappings", "pg_backend_memory_contexts",
		"pg_wait_events", "pg_aios", "pg_dsm_registry_allocations":
		return true
	}
	return false
}
