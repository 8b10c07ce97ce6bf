package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// ticks is the unit of processor time in /proc, USER_HZ, the same on every Linux that Go runs on.
const ticks = 100

// procTime is processor time.
type procTime struct{ user, system time.Duration }

// total is the sum of both.
func (t procTime) total() time.Duration { return t.user + t.system }

// since is what was added after before.
func (t procTime) since(before procTime) procTime {
	return procTime{t.user - before.user, t.system - before.system}
}

// stat is what /proc/PID/stat says that matters here.
type stat struct {
	parent int
	used   procTime // its own, and that of children that ended and were waited for
}

// parseStat reads the text of a stat file. The name of the command may hold anything, so fields are
// counted from behind its last parenthesis (proc(5)).
func parseStat(text []byte) (stat, error) {
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return stat{}, fmt.Errorf("a stat file with %d fields behind the name", len(f))
	}
	var n [15]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		var err error
		if n[i], err = strconv.ParseInt(string(f[i]), 10, 64); err != nil {
			return stat{}, fmt.Errorf("field %d of a stat file: %w", i+3, err)
		}
	}
	span := func(t int64) time.Duration { return time.Duration(t) * (time.Second / ticks) }
	return stat{
		parent: int(n[1]),
		used:   procTime{user: span(n[11] + n[13]), system: span(n[12] + n[14])},
	}, nil
}

// family is a process and all its living descendants.
func family(pid int) (map[int]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("read /proc, which is where the figures come from: %w", os.ErrNotExist)
	}
	all := make(map[int]stat)
	below := make(map[int][]int)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it ended since
		}
		s, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		all[id] = s
		below[s.parent] = append(below[s.parent], id)
	}
	if _, ok := all[pid]; !ok {
		return nil, fmt.Errorf("process %d is gone", pid)
	}
	out := make(map[int]stat)
	for next := []int{pid}; len(next) > 0; {
		var children []int
		for _, id := range next {
			out[id] = all[id]
			children = append(children, below[id]...)
		}
		next = children
	}
	return out, nil
}

// usage is the processor time that a process and all its descendants have used so far.
func usage(pid int) (procTime, error) {
	all, err := family(pid)
	var sum procTime
	for _, s := range all {
		sum.user += s.used.user
		sum.system += s.used.system
	}
	return sum, err
}

// ownUsage is the processor time that this process alone has used so far.
func ownUsage() (procTime, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return procTime{}, fmt.Errorf("read the processor time of the load: %w", err)
	}
	s, err := parseStat(text)
	return s.used, err
}

// resident is what a process and its descendants have in memory now, in bytes. The sum over the
// mappings is exact, which the count in the stat file is not.
func resident(pid int) (int64, error) {
	all, err := family(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for id := range all {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(id) + "/smaps_rollup")
		if err != nil {
			return 0, fmt.Errorf("read the memory of a process: %w", err)
		}
		n, err := parseRollup(text)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// parseRollup is the resident set in the text of a smaps_rollup file, in bytes.
func parseRollup(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Rss:")); ok {
			kilobytes, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("a smaps_rollup file without Rss")
}
