//go:build !linux

package e2e

import "syscall"

// dieWithUs does nothing where the system has no such thing.
func dieWithUs(*syscall.SysProcAttr) {}
