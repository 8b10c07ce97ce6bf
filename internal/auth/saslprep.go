package auth

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// saslprep is the password as PostgreSQL hashes it: prepared by RFC 4013, or as it is where that
// profile refuses it (not UTF-8, prohibited or unassigned characters, mixed directions, nothing
// left), so that passwords in other encodings work too. ASCII is never changed, control
// characters included.
func saslprep(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	mapped := make([]rune, 0, len(password))
	for _, r := range password {
		switch {
		case unicode.Is(prepSpaces, r):
			mapped = append(mapped, ' ')
		case unicode.Is(prepNothing, r):
		default:
			mapped = append(mapped, r)
		}
	}
	out := norm.NFKC.String(string(mapped))
	if out == "" || !permitted([]rune(out)) {
		return password
	}
	return out
}

// permitted applies the prohibitions and the rules for mixed directions to a prepared string,
// which is not empty.
func permitted(s []rune) bool {
	rightToLeft, leftToRight := false, false
	for _, r := range s {
		if unicode.Is(prepProhibited, r) || unicode.Is(prepUnassigned, r) {
			return false
		}
		rightToLeft = rightToLeft || unicode.Is(prepRandAL, r)
		leftToRight = leftToRight || unicode.Is(prepL, r)
	}
	if !rightToLeft {
		return true
	}
	return !leftToRight && unicode.Is(prepRandAL, s[0]) && unicode.Is(prepRandAL, s[len(s)-1])
}

// isASCII says whether every byte of s is below 0x80.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
