package router

import (
	"slices"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, s := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" ;; -- nothing\n", nil},
		{"SELECT 1", []string{"SELECT 1"}},
		{"SELECT 1;\nSELECT ';' ; ", []string{"SELECT 1", "SELECT ';'"}},
		{"/* pgweir: standby */ SELECT 1; -- tail", []string{"/* pgweir: standby */ SELECT 1"}},
		{"SELECT 1; SELECT 'open; SELECT 2", []string{"SELECT 1", "SELECT 'open; SELECT 2"}},
		{"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3", []string{"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"}},
		{
			"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
			[]string{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 3"},
		},
		{"BEGIN; SELECT 1; END", []string{"BEGIN", "SELECT 1", "END"}},
	} {
		var got []string
		for _, b := range Split([]byte(s.text), true) {
			got = append(got, string(b))
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("%q: %q, want %q", s.text, got, s.want)
		}
	}
}
