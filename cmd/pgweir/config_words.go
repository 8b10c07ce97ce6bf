package main

import (
	"fmt"
	"strings"
)

// didYouMean is "; did you mean "x"?" for the known word nearest to word, or "; known here: …"
// where none is near and the list is short, ready to stand behind a message.
func didYouMean(word string, known []string) string {
	switch near := nearest(word, known); {
	case near != "":
		return fmt.Sprintf("; did you mean %q?", near)
	case len(known) > 0 && len(known) <= 12:
		return "; known here: " + strings.Join(known, ", ")
	default:
		return ""
	}
}

// nearest is the known word that word may be a slip of, "" when none is near.
func nearest(word string, known []string) string {
	best, distance := "", min(len(word)/2+1, 4)
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that
// make b out of a.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}

// notYet is what to say of a key that is described but is not part of this version, "" for
// every other key.
func notYet(path string) string {
	last := path[strings.LastIndexByte(path, '.')+1:]
	switch {
	case last == "promotion.quorum", last == "hooks", last == "topology", last == "switchover",
		last == "resolve_commits", last == "freshness_window", path == "failover.lost_writes",
		path == "failover.replay", path == "routes":
		return "is not available in this version"
	default:
		return ""
	}
}

// expand fills in ${VAR} and ${VAR:-default}; $${ stands for ${ itself. A variable that is not
// set and has no default is an error; one that is empty takes its default, as in a shell.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		out.WriteString(text[:i])
		inside, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			return "", fmt.Errorf("%q: ${ without }", text[i:])
		}
		name, fallback, hasFallback := strings.Cut(inside, ":-")
		if !isVariable(name) {
			return "", fmt.Errorf("${%s}: %q is no name of a variable; write $${ for a literal ${", inside, name)
		}
		val, set := lookup(name)
		switch {
		case hasFallback && val == "":
			val = fallback
		case !set:
			return "", fmt.Errorf("${%s}: the variable is not set; ${%s:-…} gives a default", name, name)
		}
		out.WriteString(val)
		text = rest
	}
}

// isVariable says whether name can be an environment variable's in a shell.
func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
