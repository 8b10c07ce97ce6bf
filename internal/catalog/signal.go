package catalog

// roleSignalBackend is the role whose members may signal the processes of all but superusers.
const roleSignalBackend = "pg_signal_backend"

// MaySignal says whether a role may signal the server processes of another, as pg_terminate_backend judges it. Without
// a view it may signal only its own.
func (d *Database) MaySignal(role, of string) bool {
	s := d.snapshot()
	if s == nil {
		return role == of
	}
	return s.rights.maySignal(role, of)
}

// maySignal is MaySignal.
func (r *rights) maySignal(role, of string) bool {
	who, known := r.roles[role]
	whose, exists := r.roles[of]
	switch {
	case !known || !exists:
		return false
	case who.super || whose.super:
		return who.super
	}
	privs := r.privileges(who.oid)
	all, ok := r.roles[roleSignalBackend]
	return privs[whose.oid] || ok && privs[all.oid]
}
