package pgwire

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSplitOptions(t *testing.T) {
	for in, want := range map[string][]string{
		"":                 nil,
		" \t\n\v\f\r":      nil,
		"a":                {"a"},
		" a  b\tc ":        {"a", "b", "c"},
		`a\ b`:             {"a b"},
		`a\\b \\`:          {`a\b`, `\`},
		`\`:                {""},
		`a\`:               {"a"},
		`\a\b`:             {"ab"},
		"-c\\\tx=1":        {"-c\tx=1"},
		"-c search_path=ä": {"-c", "search_path=ä"},
	} {
		equal(t, "SplitOptions "+in, SplitOptions(in), want)
	}
}

// TestParseOptions holds what PostgreSQL 15 does with each text, as observed. An error is the
// one before which the settings are applied.
func TestParseOptions(t *testing.T) {
	const invalid = "invalid command-line argument for server process: "
	for _, c := range []struct {
		in   string
		want []Param
		err  string
	}{
		{"", nil, ""},
		{"-c work_mem=1MB", []Param{{"work_mem", "1MB"}}, ""},
		{"-cwork-mem=3MB", []Param{{"work_mem", "3MB"}}, ""},
		{"--work-mem=3MB", []Param{{"work_mem", "3MB"}}, ""},
		{"--c=1", []Param{{"c", "1"}}, ""},
		{"-e- work_mem=1MB", []Param{{"datestyle", "euro"}, {"work_mem", "1MB"}}, ""},
		{"-ec work_mem=2MB", []Param{{"datestyle", "euro"}, {"work_mem", "2MB"}}, ""},
		{`-c name=a\ b`, []Param{{"name", "a b"}}, ""},
		{`-c datestyle=\ `, []Param{{"datestyle", " "}}, ""},
		{`-c a.b=\\`, []Param{{"a.b", `\`}}, ""},
		{"-c a-b=c-d=e", []Param{{"a_b", "c-d=e"}}, ""},
		{"-c a=", []Param{{"a", ""}}, ""},
		{"-c a=1 -c a=2", []Param{{"a", "1"}, {"a", "2"}}, ""},
		{"-S 100 -W 1 -F -B9", []Param{{"work_mem", "100"}, {"post_auth_delay", "1"}, {"fsync", "false"}, {"shared_buffers", "9"}}, ""},
		{"-b -C x -D / -E -j -n -r /x -T -v 131072", nil, ""},
		{"--", nil, ""},
		{"-e --", []Param{{"datestyle", "euro"}}, ""},
		{"-c=", []Param{{"", ""}}, ""}, // a node says: unrecognized configuration parameter ""
		{"-c =x", []Param{{"", "x"}}, ""},
		{"--=", []Param{{"", ""}}, ""},
		{"-c", nil, invalid + "-c"},
		{"-B", nil, invalid + "-B"},
		{"-c a=1 -B", []Param{{"a", "1"}}, invalid + "-B"},
		{"-c a", nil, "-c a requires a value"},
		{`-c a\`, nil, "-c a requires a value"},
		{`-c \`, nil, "-c  requires a value"},
		{"--a", nil, "--a requires a value"},
		{"-c work_mem 1MB", nil, "-c work_mem requires a value"},
		{"-x", nil, invalid + "-x"},
		{"-xy", nil, invalid + "postgres"},
		{"-e -xy", []Param{{"datestyle", "euro"}}, invalid + "-e"},
		{"a -e -xy", []Param{{"datestyle", "euro"}}, invalid + "a"},
		{"-ea", []Param{{"datestyle", "euro"}}, invalid + "-ea"},
		{"-:", nil, invalid + "-:"},
		{"a", nil, invalid + "a"},
		{"-", nil, invalid + "-"},
		{`\`, nil, invalid},
		{`-\`, nil, invalid + "-"},
		{`-\ `, nil, invalid + "- "},
		{"a b -c work_mem=1MB", []Param{{"work_mem", "1MB"}}, invalid + "a"},
		{"-c work_mem=1MB a", []Param{{"work_mem", "1MB"}}, invalid + "a"},
		{"-e\tx", []Param{{"datestyle", "euro"}}, invalid + "x"},
		{"-- x", nil, invalid + "x"},
		{"x -- y", nil, invalid + "x"},
		{"-e -- y", []Param{{"datestyle", "euro"}}, invalid + "y"},
		{"-- -c a=1", nil, invalid + "-c"},
	} {
		got, err := ParseOptions(c.in)
		equal(t, "ParseOptions "+c.in, got.Settings, c.want)
		equal(t, "opaque "+c.in, got.Opaque, false)
		var pe *ProtocolError
		switch {
		case c.err == "" && err == nil:
		case errors.As(err, &pe) && pe.Message == c.err && pe.Code == CodeSyntaxError:
		default:
			t.Errorf("ParseOptions(%q): %v, want %q", c.in, err, c.err)
		}
	}
	for _, in := range []string{"-d5", "-d 5", "-fs", "-tpa"} {
		got, err := ParseOptions(in)
		if !got.Opaque || err != nil {
			t.Errorf("ParseOptions(%q) = %+v, %v; want it opaque", in, got, err)
		}
	}
}

// TestParseOptionsLong gives 64 KiB and more of everything that could make a parser spin.
func TestParseOptionsLong(t *testing.T) {
	begun := time.Now()
	for _, unit := range []string{
		" ", "-", "--", "-c", "-c ", "-c=", "-c = ", "\\", "\\ ", "\\\\", "=", "--=", "-e", "-- ", "a ", "-c a=b ", ":", "-\\ ",
	} {
		text := strings.Repeat(unit, 1+(64<<10)/len(unit))
		ParseOptions(text)
		SplitOptions(text)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestAppendOption(t *testing.T) {
	settings := []Param{{"search_path", `"a b", c\d`}, {"x.y", "\t\n"}, {"e", ""}, {"t", "trailing "}}
	var b []byte
	for _, s := range settings {
		b = AppendOption(b, s.Name, s.Value)
	}
	got, err := ParseOptions(string(b))
	equal(t, "settings", got.Settings, settings)
	equal(t, "error", err, nil)
}
