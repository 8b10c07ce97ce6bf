package health

import (
	"fmt"
	"strconv"
	"strings"
)

// lsn is a position in the write-ahead log; 0 is no position.
type lsn uint64

// parseLSN reads PostgreSQL's text form of pg_lsn, two hexadecimal halves around a slash.
func parseLSN(s string) (lsn, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse WAL position %q: no slash", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse WAL position %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse WAL position %q: %w", s, err)
	}
	return lsn(h<<32 | l), nil
}

// String is PostgreSQL's text form.
func (p lsn) String() string { return fmt.Sprintf("%X/%X", uint64(p)>>32, uint32(p)) }

// The sizes of WAL page headers: XLogShortPHD, and XLogLongPHD on the first page of a segment.
const (
	shortHeader = 24
	longHeader  = 40
)

// behindHeader takes a page header off an insert position that stands right behind one: no record
// follows the header yet, so a standby that has replayed everything stands at the page's start
// (freshness.md, "The mechanism"). No record can end there, so nothing is lost by it.
func behindHeader(p lsn, page, segment uint64) lsn {
	if page == 0 || segment == 0 {
		return p
	}
	switch {
	case uint64(p)%segment == longHeader:
		return p - longHeader
	case uint64(p)%page == shortHeader && uint64(p)%segment >= page:
		return p - shortHeader
	}
	return p
}
