package main

import "syscall"

// childAttr makes a child ignore the terminal's Ctrl-C and end when we do.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
