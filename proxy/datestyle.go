package proxy

import (
	"strings"
	"unicode"
)

// dateOrders and dateStyles are the two halves of DateStyle, by the beginnings of the words that name them
// (PostgreSQL's check_datestyle).
var (
	dateStyles = map[string]string{"iso": "ISO", "sql": "SQL", "postgres": "Postgres", "german": "German"}
	dateOrders = map[string]string{"ymd": "YMD", "dmy": "DMY", "euro": "DMY", "mdy": "MDY", "us": "MDY", "noneuro": "MDY"}
)

// dateHalf is a word's meaning in one of the halves, "" when it has none.
func dateHalf(half map[string]string, word string) string {
	for _, long := range []string{"postgres", "euro", "noneuro"} {
		if strings.HasPrefix(word, long) {
			return half[long]
		}
	}
	return half[word]
}

// defaultHalf is a half that DEFAULT put back.
const defaultHalf = "DEFAULT"

// dateStyle is the client's text of DateStyle, the one setting whose new value builds on the one that it replaces:
// what value leaves open is as old has it. A value that is not understood stands for itself.
func dateStyle(old, value string) string {
	style, order, ok1 := dateHalves(old)
	newStyle, newOrder, ok2 := dateHalves(value)
	if !ok1 || !ok2 {
		return value
	}
	if newStyle != "" {
		style = newStyle
	}
	if newOrder != "" {
		order = newOrder
	}
	var words []string
	for _, half := range []string{style, order} {
		// A half that is left out is the default's, but for the order that comes with German.
		if half != "" && (half != defaultHalf || style == "German") {
			words = append(words, half)
		}
	}
	if len(words) == 0 {
		words = append(words, defaultHalf)
	}
	return quoteLiteral(strings.Join(words, ", "))
}

// dateHalves are the two halves of a value, "" where it says nothing of one.
func dateHalves(value string) (style, order string, ok bool) {
	given := false
	for _, word := range strings.FieldsFunc(strings.ToLower(value), func(c rune) bool { return !unicode.IsLetter(c) }) {
		s, o := dateHalf(dateStyles, word), dateHalf(dateOrders, word)
		switch {
		case s == "German":
			style = s
			if !given {
				order = "DMY"
			}
		case s != "":
			style = s
		case o != "":
			order, given = o, true
		case word == "default":
			if style == "" {
				style = defaultHalf
			}
			if !given {
				order = defaultHalf
			}
		default:
			return "", "", false
		}
	}
	return style, order, true
}
