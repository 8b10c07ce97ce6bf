//go:build !linux

package main

import "syscall"

// childAttr makes a child ignore the terminal's Ctrl-C.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
