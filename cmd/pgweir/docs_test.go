package main

import (
	"path/filepath"
	"testing"
)

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
