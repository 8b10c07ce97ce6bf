package router

import "pgweir/health"

// Route decides where a unit goes: the node, or what to wait for. It is a pure function of what
// it is given, and allocates nothing. now is health.Clock's.
//
// It is for units outside of a transaction and for the first of one: inside, the lease that the
// transaction has decides. A unit of FlagPgweir alone is answered by pgweir (TargetLocal).
//
// The order of what decides: the console's SET route, what pgweir answers itself, pins, hints,
// the setting route, the unit's class, freshness.
func Route(u *Unit, v View, s *health.Snapshot, now int64) Decision {
	r := routing{unit: u, view: &v, snap: s, now: now}
	if u.Flags&FlagPgweir != 0 && u.Statements == 1 {
		return Decision{Target: TargetLocal, Reason: ReasonSession}
	}
	if u.Class == ClassSession {
		return r.session()
	}
	if v.Override && v.Mode != RouteStandby && v.Mode != RouteAuto {
		return r.primary(ReasonOverride)
	}
	if bindsReads(v.Pinned) {
		return r.primary(ReasonPinned)
	}
	class, reason, certain := r.class()
	want, why := r.want()
	switch {
	case class == ClassPrimary && want == HintStandby && !certain:
		return r.standby(why)
	case class == ClassPrimary && want == HintStandby && u.StandbyError && u.Class == ClassPrimary:
		return Decision{Target: TargetLocal, Reason: ReasonHintRefused, Refuse: true}
	case class == ClassPrimary && want == HintStandby:
		return r.primary(ReasonHintRefused)
	case class == ClassPrimary:
		return r.primary(reason)
	case want == HintPrimary:
		return r.primary(why)
	}
	return r.standby(why)
}

// routing is one call of Route.
type routing struct {
	unit *Unit
	view *View
	snap *health.Snapshot
	now  int64
}

// bindsReads reports whether a pin keeps reads on the primary's connection, too.
func bindsReads(p Pin) bool {
	return p != PinNone && p != PinListen && p != PinSequence
}

// class is the unit's class in this session, with its reason; certain: no hint changes it.
func (r *routing) class() (Class, Reason, bool) {
	u, v := r.unit, r.view
	class, reason, sure := u.Class, u.Reason, u.Certain
	if class == ClassPrimary && v.ReadOnly && u.Flags&FlagReadInReadOnly != 0 && u.Flags&FlagBegin != 0 {
		class, reason, sure = ClassRead, ReasonRead, false
	}
	if class == ClassRead {
		switch {
		case v.UnsafeEncoding:
			return ClassPrimary, ReasonEncoding, true
		case v.Serializable:
			return ClassPrimary, ReasonSerializable, true
		}
	}
	return class, reason, sure
}

// want is what the hints and the setting route ask for, and the reason to give: HintPrimary,
// HintStandby, or HintAuto for whatever the class says.
func (r *routing) want() (Hint, Reason) {
	v := r.view
	if v.Override {
		if v.Mode == RouteStandby {
			return HintStandby, ReasonOverride
		}
		return HintAuto, ReasonOverride
	}
	if v.Mode == RouteShadow {
		return HintPrimary, ReasonShadow
	}
	readsOnly := v.ListenerMode == RouteStandby
	for _, h := range [...]Hint{v.LocalHint, r.unit.Hint, v.SessionHint} {
		switch h {
		case HintNone:
			continue
		case HintStandby:
			return HintStandby, ReasonHint
		case HintPrimary:
			if !readsOnly {
				return HintPrimary, ReasonHint
			}
		case HintAuto:
			if !readsOnly {
				return HintAuto, ReasonRead
			}
		}
		break
	}
	switch {
	case readsOnly || v.Mode == RouteStandby:
		return HintStandby, ReasonRead
	case v.Mode == RoutePrimary:
		return HintPrimary, ReasonRoutePrimary
	case !v.Offloaded:
		return HintPrimary, ReasonOffload
	}
	return HintAuto, ReasonRead
}

// session places a unit that needs no particular node: the lease at hand, the primary, or
// any standby that may be read.
func (r *routing) session() Decision {
	v := r.view
	if bindsReads(v.Pinned) {
		return r.primary(ReasonPinned)
	}
	if v.Held != nil && !v.tried(v.Held) && v.Held.Live != nil {
		for _, n := range r.snap.Nodes {
			if n.Live == v.Held.Live && n.State == health.StateUp && n.Trusted(r.now) {
				return Decision{Node: n, Target: targetOf(n, r.snap), Reason: r.unit.Reason}
			}
		}
	}
	reason := r.unit.Reason
	if d := r.primary(reason); d.Node != nil {
		return d
	}
	for _, n := range r.snap.Nodes {
		if r.readable(n) {
			return Decision{Node: n, Target: TargetStandby, Reason: reason}
		}
	}
	return r.primary(reason)
}

// targetOf is the kind of node that n is.
func targetOf(n *health.Node, s *health.Snapshot) Target {
	if s.Primary != nil && s.Primary.Live == n.Live {
		return TargetPrimary
	}
	return TargetStandby
}

// primary places the unit on the primary, or waits for one.
func (r *routing) primary(reason Reason) Decision {
	p := r.snap.Primary
	if p == nil || !p.Trusted(r.now) {
		return Decision{Reason: ReasonNoPrimary, Wait: WaitPrimary}
	}
	return Decision{Node: p, Target: TargetPrimary, Reason: reason, Unproven: r.unproven()}
}

// unproven reports whether the unit is a read that could go back in time on the primary: the
// session read on a standby last, and no sample of the primary covers that read yet.
func (r *routing) unproven() bool {
	v := r.view
	if r.unit.Mark != MarkRead || v.LastRead == nil || v.Consistency == ConsistencyEventual {
		return false
	}
	if r.snap.Primary != nil && v.LastRead.Live == r.snap.Primary.Live || v.LastRead.Live == nil {
		return false
	}
	f := v.LastRead.Live.Fresh()
	return f.Incarnation != v.LastReadInc || f.Covered <= v.Need
}

// standby places a read: on a standby that is fresh enough, or where reads_on_primary says.
func (r *routing) standby(reason Reason) Decision {
	c := r.choose()
	if c.node != nil {
		if c.primary {
			return Decision{Node: c.node, Target: TargetPrimary, Reason: ReasonShare}
		}
		return Decision{Node: c.node, Target: TargetStandby, Reason: reason}
	}
	why := ReasonNoStandby
	if c.stale {
		why = ReasonNotFresh
		if c.soon {
			return Decision{Reason: why, Wait: WaitFresh}
		}
	}
	if r.view.OnPrimary == ReadsNever {
		return Decision{Reason: why, Wait: WaitStandby}
	}
	return r.primary(why)
}
