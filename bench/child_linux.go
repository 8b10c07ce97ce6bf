package main

import "syscall"

// childAttr gives a child a process group of its own, so that Ctrl-C reaches only us, and the signal
// sig when we die.
func childAttr(sig syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: sig}
}
