package e2e

import "syscall"

// dieWithUs makes a child end when the thread that starts it ends.
func dieWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
