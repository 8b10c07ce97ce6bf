//go:build !linux

package main

import "syscall"

// childAttr gives a child a process group of its own; that it ends with us is for Linux only.
func childAttr(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
