package localpg

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// procAttr is how children are started: with the server's account, in a process group of their
// own so that a Ctrl-C of the terminal reaches only us, and with a quick shutdown (SIGQUIT) when
// the thread that started them ends, which is why all are started by one (see spawner).
func procAttr(a account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// descendants lists the living processes below pid, children before grandchildren. Those of a
// stopped process cannot be reaped meanwhile, so their ids name nobody else.
func descendants(pid int) []int {
	children := make(map[int][]int)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The command's name may hold anything, a parenthesis too: the fields begin after the last.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 || fields[0][0] == 'Z' {
			continue
		}
		if ppid, err := strconv.Atoi(string(fields[1])); err == nil {
			children[ppid] = append(children[ppid], id)
		}
	}
	var out []int
	for next := children[pid]; len(next) > 0; {
		out = append(out, next...)
		var below []int
		for _, p := range next {
			below = append(below, children[p]...)
		}
		next = below
	}
	return out
}

// stopped says whether the kernel has stopped pid (job control), or pid is gone.
func stopped(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	return len(fields) > 0 && (fields[0][0] == 'T' || fields[0][0] == 'Z')
}

// alive says whether a process of that id exists and is not a zombie.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	return len(fields) > 0 && fields[0][0] != 'Z'
}

// ephemeralStart is the first port that the kernel gives to outgoing connections.
func ephemeralStart() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if f := bytes.Fields(text); len(f) == 2 {
			if n, err := strconv.Atoi(string(f[0])); err == nil && n > 12000 {
				return n
			}
		}
	}
	return 32768
}

// portLockAddr is an abstract Unix address that this process holds while a node owns the port,
// so that two processes never choose the same port, not even while its server is down.
func portLockAddr(port int) string { return "@pgweir-localpg-" + strconv.Itoa(port) }
