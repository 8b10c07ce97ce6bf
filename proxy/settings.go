package proxy

import (
	"slices"
	"strings"
)

// settings is the set of configuration parameters a session has changed, as the client's own
// text. It is immutable, so two leases that carry the same settings share one pointer. A session may have thousands
// of custom ones: to change one costs a copy of the slice, to change all costs no more than that.
type settings struct {
	pairs   []pair // by name
	places  int    // of the names, so far
	sum     uint64 // of the pairs: the same for the same settings
	plans   string // the same for the same settings, as far as what a text means may depend on them
	custom  nameSet
	missing int // how many are atDefault
}

// pair is one setting.
type pair struct {
	name, value string
	place       int // settings are replayed in the order of their first SET
}

// nameSet tells sets of names of custom settings apart. The zero nameSet has none.
type nameSet struct {
	count int
	sum   uint64
}

// unplanned are settings that no parsed statement depends on.
var unplanned = map[string]bool{
	"application_name": true, "client_min_messages": true, "statement_timeout": true, "lock_timeout": true,
	"idle_in_transaction_session_timeout": true, "idle_session_timeout": true, "synchronous_commit": true,
	"transaction_isolation": true, "transaction_read_only": true, "transaction_deferrable": true,
	"default_transaction_isolation": true, "default_transaction_read_only": true, "default_transaction_deferrable": true,
}

// byFunction marks a value that set_config made: it is a literal, and only set_config makes the
// same again, since SET would quote the elements of a list.
const byFunction = "\x00"

// wasReset is the value of a custom setting ("a.b") that was reset: it is not gone, as it was before its
// first SET, but empty.
const wasReset = "\x01"

// atDefault is the value of a setting that the session started with, where a RESET of the client's has brought the node to the
// node's own default instead.
const atDefault = "\x02"

// anyValue is the value of a setting of which nobody knows what it is on a node.
const anyValue = "\x03"

// custom says whether a setting is one that SET makes.
func custom(name string) bool { return strings.Contains(name, ".") }

// privileged says whether only a superuser may change a setting, or who was granted the right to.
func privileged(name string) bool {
	for _, prefix := range []string{"log_", "track_", "wal_", "auto_explain.", "pg_stat_statements."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "allow_in_place_tablespaces", "allow_system_table_mods", "backtrace_functions", "commit_delay", "compute_query_id",
		"deadlock_timeout", "debug_discard_caches", "dynamic_library_path", "extension_control_path", "ignore_checksum_failure",
		"jit_dump_bitcode", "lc_messages", "lo_compat_privileges", "max_stack_depth", "restrict_nonsystem_relation_kind",
		"session_preload_libraries", "session_replication_role", "temp_file_limit", "update_process_title", "zero_damaged_pages":
		return true
	}
	return false
}

// decides says whether what a text means may depend on a setting.
func decides(name string) bool { return !custom(name) && !unplanned[name] }

// hashed is a number for texts that others have for next to none (FNV-1a and the end of MurmurHash3).
func hashed(texts ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, text := range texts {
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211 // in no text of UTF-8
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// noSettings is where every session starts.
var noSettings = &settings{}

// counts adds a pair to what is known of the set, or, with by -1, takes it out.
func (s *settings) counts(p *pair, by int) {
	s.sum += uint64(by) * hashed(p.name, p.value)
	if custom(p.name) {
		s.custom.count += by
		s.custom.sum += uint64(by) * hashed(p.name)
	}
	if p.value == atDefault {
		s.missing += by
	}
}

// sealed fills in what a new set of pairs is known by.
func (s *settings) sealed() *settings {
	s.sum, s.custom, s.missing = 0, nameSet{}, 0
	for i := range s.pairs {
		s.counts(&s.pairs[i], 1)
	}
	return s.setPlans()
}

// setPlans fills in plans.
func (s *settings) setPlans() *settings {
	var b []byte
	for i := range s.pairs {
		if p := &s.pairs[i]; decides(p.name) {
			b = append(append(append(append(b, p.name...), 0), p.value...), 0)
		}
	}
	s.plans = string(b)
	return s
}

// find is where a name is, or would be.
func (s *settings) find(name string) (at int, ok bool) {
	return slices.BinarySearchFunc(s.pairs, name, func(p pair, name string) int { return strings.Compare(p.name, name) })
}

// get is the client's own text for name, "" and false when the session has not changed it.
func (s *settings) get(name string) (string, bool) {
	if at, ok := s.find(name); ok {
		return s.pairs[at].value, true
	}
	return "", false
}

// lacks says whether the node is at its own default of a setting, where the session is at the one it started with.
func (s *settings) lacks(name string) bool {
	v, _ := s.get(name)
	return v == atDefault
}

// same says whether two sets have the same settings.
func (s *settings) same(as *settings) bool {
	return s == as || s.sum == as.sum && slices.EqualFunc(s.pairs, as.pairs, func(a, b pair) bool { return a.name == b.name && a.value == b.value })
}

// ordered is the pairs in the order in which they are replayed.
func (s *settings) ordered() []pair {
	all := slices.Clone(s.pairs)
	slices.SortFunc(all, func(a, b pair) int { return a.place - b.place })
	return all
}

// with returns the set in which name has value.
func (s *settings) with(name, value string) *settings {
	at, ok := s.find(name)
	if ok && s.pairs[at].value == value {
		return s
	}
	n := *s
	p := pair{name: name, value: value, place: s.places}
	n.pairs = make([]pair, len(s.pairs), len(s.pairs)+1)
	copy(n.pairs, s.pairs)
	if ok {
		n.counts(&s.pairs[at], -1)
		p.place = s.pairs[at].place
		n.pairs[at] = p
	} else {
		n.places++
		n.pairs = slices.Insert(n.pairs, at, p)
	}
	n.counts(&p, 1)
	if decides(name) {
		n.setPlans()
	}
	return &n
}

// without returns the set in which name is back at its session default.
func (s *settings) without(name string) *settings {
	at, ok := s.find(name)
	if !ok {
		return s
	}
	n := *s
	n.counts(&s.pairs[at], -1)
	n.pairs = slices.Concat(s.pairs[:at], s.pairs[at+1:])
	if decides(name) {
		n.setPlans()
	}
	return &n
}

// reset returns the set after RESET of a name.
func (s *settings) reset(name string) *settings {
	if custom(name) {
		return s.with(name, wasReset)
	}
	return s.without(name)
}

// customOnly returns the set in which only the custom settings are left, reset.
func (s *settings) customOnly() *settings {
	n := &settings{places: s.places}
	for _, p := range s.pairs {
		if custom(p.name) {
			p.value = wasReset
			n.pairs = append(n.pairs, p)
		}
	}
	return n.sealed()
}

// after returns the set s that a rollback goes back to: custom settings that undone made are not gone, but empty.
func (s *settings) after(undone *settings) *settings {
	if s == undone {
		return s
	}
	var more []pair
	for _, p := range undone.pairs {
		if !custom(p.name) {
			continue
		}
		if _, ok := s.find(p.name); !ok {
			p.value = wasReset
			more = append(more, p)
		}
	}
	return s.merged(more)
}

// merged returns the set in which those of more have their values. More is by name.
func (s *settings) merged(more []pair) *settings {
	if len(more) == 0 {
		return s
	}
	n := &settings{pairs: make([]pair, 0, len(s.pairs)+len(more)), places: s.places}
	var added []pair
	have := s.pairs
	for _, p := range more {
		for len(have) > 0 && have[0].name < p.name {
			n.pairs, have = append(n.pairs, have[0]), have[1:]
		}
		if len(have) > 0 && have[0].name == p.name {
			p.place = have[0].place
			n.pairs, have = append(n.pairs, p), have[1:]
			continue
		}
		added = append(added, p)
	}
	n.pairs = append(n.pairs, have...)
	slices.SortFunc(added, func(a, b pair) int { return a.place - b.place })
	for _, p := range added {
		p.place, n.places = n.places, n.places+1
		n.pairs = append(n.pairs, p)
	}
	slices.SortFunc(n.pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return n.sealed()
}

// onNode returns the set as a node has it.
func (s *settings) onNode() *settings {
	if s.missing == 0 {
		return s
	}
	n := &settings{places: s.places}
	for _, p := range s.pairs {
		if p.value != atDefault {
			n.pairs = append(n.pairs, p)
		}
	}
	return n.sealed()
}

// anySettings returns a set with the names of both, of which no value is known.
func anySettings(a, b *settings) *settings {
	all := a.merged(b.pairs)
	n := &settings{places: all.places, pairs: slices.Clone(all.pairs)}
	for i := range n.pairs {
		n.pairs[i].value = anyValue
	}
	return n.sealed()
}
