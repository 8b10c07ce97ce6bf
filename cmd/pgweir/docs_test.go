package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDecisionsAreNumbered holds that each decision has a number of its own, none is left out, and the title says it.
func TestDecisionsAreNumbered(t *testing.T) {
	files, err := filepath.Glob("../../docs/decisions/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, title := filepath.Base(file), fmt.Sprintf("# %d. ", i+1)
		if !strings.HasPrefix(name, fmt.Sprintf("%04d-", i+1)) || !bytes.HasPrefix(text, []byte(title)) {
			t.Errorf("%s is the decision %d by its place, and should begin with %q", name, i+1, title)
		}
	}
}

// TestEveryPackageSaysWhatItAnswers holds that the package's comment stands in doc.go, or in the
// only file of a package.
func TestEveryPackageSaysWhatItAnswers(t *testing.T) {
	documented, files := map[string]bool{}, map[string]int{}
	all := sources(t)
	for _, s := range all {
		if !s.test {
			files[s.pkg]++
		}
	}
	for _, s := range all {
		if s.file.Doc != nil && (filepath.Base(s.path) == "doc.go" || files[s.pkg] == 1) {
			documented[s.pkg] = true
		}
	}
	for pkg := range files {
		if !documented[pkg] {
			t.Errorf("%s has no doc.go with the package's comment", pkg)
		}
	}
}
