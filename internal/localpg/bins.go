package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// EnvBins names a directory of server binaries that Find takes before it looks elsewhere.
const EnvBins = "PGWEIR_PG_BINS"

// EnvCache names the directory in which Find looks for fetched binaries, one directory a major
// version; the default is CacheDir's.
const EnvCache = "PGWEIR_PG_CACHE"

// ErrNotFound is wrapped by the errors of Find when no binaries of the asked version are here.
var ErrNotFound = errors.New("no PostgreSQL server binaries found")

// Bins is a directory of PostgreSQL programs of one major version. Values come from Find and At.
type Bins struct {
	Dir     string // absolute; holds at least postgres and initdb
	Version int    // major version, 14 and up
	LibDir  string // put into LD_LIBRARY_PATH when not empty
}

// Find returns the server binaries of a major version, or of the newest one here for version 0.
// It looks at $PGWEIR_PG_BINS (if that has the asked version), then where Debian, the PGDG RPMs
// and Homebrew install servers and at `pg_config --bindir`, and only if nothing is installed in
// the cache of fetched binaries (CacheDir). The error wraps ErrNotFound and says where it looked.
func Find(version int) (Bins, error) {
	if dir := os.Getenv(EnvBins); dir != "" {
		b, err := At(dir)
		if err != nil {
			return Bins{}, fmt.Errorf("use $%s: %w", EnvBins, err)
		}
		if version == 0 || b.Version == version {
			return b, nil
		}
	}
	var found []Bins
	for _, dirs := range [][]string{installed(), fetched()} {
		for _, dir := range dirs {
			b, err := At(dir)
			if err == nil && (version == 0 || b.Version == version) {
				found = append(found, b)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		what := "of any version"
		if version != 0 {
			what = fmt.Sprintf("of major version %d", version)
		}
		return Bins{}, fmt.Errorf("%w: %s; looked at $%s, /usr/lib/postgresql/N/bin, /usr/pgsql-N/bin, Homebrew's directories, %s and pg_config; install the package postgresql or set $%s to a directory that holds postgres and initdb",
			ErrNotFound, what, EnvBins, CacheDir(), EnvBins)
	}
	// A stable maximum: of two directories with the same version the one looked at first.
	best := found[0]
	for _, b := range found[1:] {
		if b.Version > best.Version {
			best = b
		}
	}
	return best, nil
}

// CacheDir is where fetched binaries are kept, one directory a major version: $PGWEIR_PG_CACHE, or
// /var/cache/pgweir for root (the servers run as another user, who must be able to read them), or
// pgweir in the user's cache directory.
func CacheDir() string {
	if dir := os.Getenv(EnvCache); dir != "" {
		return dir
	}
	if os.Getuid() == 0 {
		return "/var/cache/pgweir"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "pgweir-cache")
	}
	return filepath.Join(dir, "pgweir")
}

// installed lists the directories in which servers are usually installed, those that exist.
func installed() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	} {
		dirs = append(dirs, glob(pattern)...)
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	return dirs
}

// fetched lists the directories of programs in the cache.
func fetched() []string { return glob(filepath.Join(CacheDir(), "*", "native", "bin")) }

// glob is the sorted list of what matches.
func glob(pattern string) []string {
	m, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	slices.Sort(m)
	return m
}

// versionLine matches what `postgres --version` prints, beta versions included.
var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// At returns the binaries in dir. A directory "lib" beside it that holds a libpq is used as
// library path, as the relocatable packages need it.
func At(dir string) (Bins, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Bins{}, fmt.Errorf("resolve %q: %w", dir, err)
	}
	b := Bins{Dir: dir}
	for _, name := range []string{"postgres", "initdb"} {
		if !b.Has(name) {
			return Bins{}, fmt.Errorf("%w: %s has no %s", ErrNotFound, dir, name)
		}
	}
	lib := filepath.Join(filepath.Dir(dir), "lib")
	if m, err := filepath.Glob(filepath.Join(lib, "libpq.so*")); err == nil && len(m) > 0 {
		b.LibDir = lib
	}
	cmd := exec.Command(b.Path("postgres"), "--version")
	cmd.Env = b.environ()
	out, err := cmd.Output()
	if err != nil {
		return Bins{}, fmt.Errorf("run %s --version: %w", b.Path("postgres"), err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Bins{}, fmt.Errorf("read the version of %s: it printed %q", b.Path("postgres"), out)
	}
	b.Version, err = strconv.Atoi(string(m[1]))
	if err != nil {
		return Bins{}, fmt.Errorf("read the version of %s: %w", b.Path("postgres"), err)
	}
	return b, nil
}

// Path is where the program of that name is, or would be.
func (b Bins) Path(name string) string { return filepath.Join(b.Dir, name) }

// Has says whether the directory holds the program of that name.
func (b Bins) Has(name string) bool {
	st, err := os.Stat(b.Path(name))
	return err == nil && !st.IsDir() && st.Mode()&0o111 != 0
}

// environ is the environment for programs of b: this process's own without what would steer
// libpq or the server (PG…), with the C locale and the library path.
func (b Bins) environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch {
		case strings.HasPrefix(kv, "PG"), strings.HasPrefix(kv, "LC_"), strings.HasPrefix(kv, "LANG"),
			strings.HasPrefix(kv, "LD_LIBRARY_PATH="):
		default:
			env = append(env, kv)
		}
	}
	env = append(env, "LC_ALL=C")
	if b.LibDir != "" {
		env = append(env, "LD_LIBRARY_PATH="+b.LibDir)
	}
	return env
}
