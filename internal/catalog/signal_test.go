package catalog

import "testing"

// TestMaySignal: a role may signal the processes of roles whose privileges it has, pg_signal_backend those of all but
// superusers, a superuser all, and what is not known nobody.
func TestMaySignal(t *testing.T) {
	r := &rights{
		roles: map[string]role{
			"plain": {oid: 1}, "group": {oid: 2}, "member": {oid: 3}, "boss": {oid: 4, super: true}, roleSignalBackend: {oid: 5}, "operator": {oid: 6},
		},
		members: map[uint32][]uint32{3: {2}, 6: {5}},
	}
	for _, c := range []struct {
		role, of string
		want     bool
	}{
		{"plain", "plain", true},
		{"plain", "group", false},
		{"member", "group", true},
		{"group", "member", false},
		{"operator", "plain", true},
		{"operator", "boss", false},
		{"boss", "plain", true},
		{"boss", "boss", true},
		{"plain", "nobody", false},
		{"nobody", "plain", false},
	} {
		if got := r.maySignal(c.role, c.of); got != c.want {
			t.Errorf("%s may signal %s: %v", c.role, c.of, got)
		}
	}
	if d := (*Database)(nil); !d.MaySignal("a", "a") || d.MaySignal("a", "b") {
		t.Error("without a view a role may signal its own, and nobody else")
	}
}
