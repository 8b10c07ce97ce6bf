package router

import "strings"

// maxBound is how long a parameter may be that becomes a session's setting.
const maxBound = 4096

// Bound is the unit of one execution of a statement whose unit has FlagSettingParam: with the parameters at hand
// set_config is like one with constants. value is the text of a parameter, counted from 1, and whether it is NULL; not ok
// where it is not known. nil: something else than the parameters decides, or one of them cannot be written as a
// constant that means the same everywhere.
func (u *Unit) Bound(value func(param int) (text string, null, ok bool)) *Unit {
	if u.Flags&FlagSettingParam == 0 || u.Statements != 1 || u.Flags&FlagReads != 0 {
		return nil
	}
	n := *u
	n.Effects = make([]Effect, 0, len(u.Effects))
	for _, e := range u.Effects {
		switch e.Kind {
		case EffectSet, EffectReset:
		case EffectSetParam:
			text, null, ok := value(e.Param)
			switch {
			case !ok || len(text) > maxBound || strings.ContainsAny(text, "\\\x00") || strings.HasPrefix(e.Name, "pgweir."):
				return nil
			case null:
				e = Effect{Kind: EffectReset, Name: e.Name}
			default:
				e = Effect{Kind: EffectSet, Name: e.Name, Value: "'" + strings.ReplaceAll(text, "'", "''") + "'", ByFunction: true}
			}
		default:
			return nil
		}
		n.Effects = append(n.Effects, e)
	}
	n.Class, n.Reason, n.Mark, n.Certain, n.StandbyError = ClassSession, ReasonSession, MarkNone, false, false
	n.Flags &^= FlagOpaque | FlagLasting | FlagSettingParam
	return &n
}
