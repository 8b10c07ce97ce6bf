//go:build !linux

package localpg

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// procAttr is how children are started: with the server's account and in a process group of
// their own. Only Linux can tie their life to ours.
func procAttr(a account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// descendants lists the living processes below pid, as ps sees them.
func descendants(pid int) []int {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	children := make(map[int][]int)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		ppid, err2 := strconv.Atoi(f[1])
		if err1 == nil && err2 == nil {
			children[ppid] = append(children[ppid], id)
		}
	}
	var list []int
	for next := children[pid]; len(next) > 0; {
		list = append(list, next...)
		var below []int
		for _, p := range next {
			below = append(below, children[p]...)
		}
		next = below
	}
	return list
}

// stopped cannot be asked cheaply here: a signal is taken to have worked.
func stopped(int) bool { return true }

// alive says whether a process of that id exists.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// ephemeralStart is the first port that the kernel gives to outgoing connections.
func ephemeralStart() int { return 32768 }

// portLockAddr is empty where there are no abstract Unix addresses.
func portLockAddr(int) string { return "" }
