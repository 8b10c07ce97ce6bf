package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool finds a program that the tests need. Where CI is set it must be there: a test that is
// skipped in CI shows nothing.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed (Debian: apt-get install %s)", name, debian)
	default:
		t.Skipf("%s is not installed (Debian: apt-get install %s)", name, debian)
	}
	return ""
}

// output runs a command and returns what it prints; its failure is the test's.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pgweir builds the program from this tree and returns its path.
func pgweir(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgweir")
	output(t, "go", "build", "-buildvcs=false", "-o", path, "pgweir/cmd/pgweir")
	return path
}

// TestPrometheusFiles lets promtool check the configuration and run the tests of the rules.
func TestPrometheusFiles(t *testing.T) {
	promtool := tool(t, "promtool", "prometheus")
	output(t, promtool, "check", "config", "prometheus/prometheus.yml")
	output(t, promtool, "test", "rules", "prometheus/rules_test.yml")
}

// TestEveryAlertIsTested holds that the tests of the rules see each alert fire and not fire.
func TestEveryAlertIsTested(t *testing.T) {
	tests, err := os.ReadFile("prometheus/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range ruleQueries(t) {
		name, isAlert := strings.CutPrefix(q.where, "alert ")
		if isAlert && !strings.Contains(string(tests), "alertname: "+name+"\n") {
			t.Errorf("%s never fires in rules_test.yml", name)
		}
	}
}

// TestScripts lets shellcheck read every script.
func TestScripts(t *testing.T) {
	shellcheck := tool(t, "shellcheck", "shellcheck")
	var scripts []string
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".sh") {
			scripts = append(scripts, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	output(t, shellcheck, append([]string{"--external-sources"}, scripts...)...)
}

// TestSetupSQL holds that the compose cluster makes the role with the program's own script.
func TestSetupSQL(t *testing.T) {
	const file = "initdb/pgweir/setup.sql"
	held, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if printed := output(t, pgweir(t), "setup-sql"); printed != string(held) {
		t.Errorf("deploy/%s is not what `pgweir setup-sql` prints; write it anew", file)
	}
}

// TestConfigurations lets the program read the configurations that stand here.
func TestConfigurations(t *testing.T) {
	program := pgweir(t)
	for _, file := range []string{"pgweir.yaml", "example.yaml"} {
		t.Run(file, func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// The file with the password that it names must exist; it does not on this machine.
			dir := t.TempDir()
			here := strings.ReplaceAll(string(content), "/etc/pgweir/", dir+"/")
			for name, content := range map[string]string{file: here, "shop-monitor": "secret\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PGWEIR_MONITOR_PASSWORD", "secret")
			output(t, program, "config", "print", "-c", filepath.Join(dir, file))
		})
	}
}
