package proxy

import "pgweir/router"

// announceSync tells the fence, before the statement is sent, that commits of this session may be
// acknowledged before they are flushed: the flush position does not cover them (freshness.md).
func (s *session) announceSync(u *router.Unit) {
	if u == nil || s.syncOn != nil {
		return
	}
	for i := range u.Effects {
		e := &u.Effects[i]
		if e.Name == "synchronous_commit" && isOff(e.Value) {
			s.syncOn = s.cluster.Monitor.Fence().SyncCommitOff()
			return
		}
	}
}

// settleSync brings what the fence knows in line with the setting that is in force now.
func (s *session) settleSync() {
	off := s.syncOff()
	switch {
	case off && s.syncOn == nil:
		s.syncOn = s.cluster.Monitor.Fence().SyncCommitOff()
	case !off && s.syncOn != nil:
		s.syncOn()
		s.syncOn = nil
	}
}

// syncOff says whether synchronous_commit is off in this session.
func (s *session) syncOff() bool {
	if _, ok := s.st.effective.get("synchronous_commit"); !ok {
		return s.base.syncOff
	}
	return isOff(s.setting("synchronous_commit"))
}
