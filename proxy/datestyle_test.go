package proxy

import (
	"testing"

	"pgweir/router"
)

// TestDateStyle: what a new value leaves open is as the one before it has it.
func TestDateStyle(t *testing.T) {
	for _, c := range []struct{ old, value, want string }{
		{"'German'", "'iso'", "'ISO, DMY'"},
		{"iso", "dmy", "'ISO, DMY'"},
		{"'iso, ymd'", "sql", "'SQL, YMD'"},
		{"German, mdy", "postgresql", "'Postgres, MDY'"},
		{"mdy", "German", "'German, DMY'"},
		{"mdy", "German, us", "'German, MDY'"},
		{"'ISO, DMY'", "German, default", "'German, DEFAULT'"},
		{"dmy", "iso, default", "'ISO'"},
		{"'ISO, DMY'", "default", "'DEFAULT'"},
		{"sql", byFunction + "'European'", "'SQL, DMY'"},
		{"sql", "noneuropean", "'SQL, MDY'"},
		{"sql", "U&'dmy'", "U&'dmy'"},
	} {
		equal(t, c.old+" then "+c.value, dateStyle(c.old, c.value), c.want)
	}
	st := newState(0)
	st.apply([]router.Effect{set("datestyle", "German"), set("datestyle", "iso")})
	equal(t, "of a session", settingsOf(st.set), "datestyle='ISO, DMY'")
	equal(t, "on a lease that has another", difference(noSettings.with("datestyle", "'German'"), noSettings.with("datestyle", "'iso'")),
		`RESET "datestyle"; SET "datestyle" TO 'iso'`)
}
