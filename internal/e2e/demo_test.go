package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"pgweir/internal/localpg"
)

// TestDemo runs `pgweir demo --check`, as a superuser and with exactly the role of setup-sql.
func TestDemo(t *testing.T) {
	bins, err := localpg.Find(0)
	if err != nil {
		t.Skip(err)
	}
	for _, role := range []string{"superuser", "setup-sql"} {
		t.Run(role, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program(t), "demo", "--check", "--role", role, "--pg-bins", bins.Dir)
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			must(t, err)
			for _, want := range []string{"answered by pg0", "answered by pg1", "answered by pg2", "promoted", "back as a standby", "every step was as promised"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("it never said %q", want)
				}
			}
		})
	}
}
