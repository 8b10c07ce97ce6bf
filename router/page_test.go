package router

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// reasonsPage is docs/reasons.md from the code.
func reasonsPage() string {
	var b strings.Builder
	b.WriteString("# Reasons\n\nWhy a statement went where it went, and why a session keeps its connection. The lists are closed and part of\nthe API: names are never renamed or removed within a major version. This page is generated from the code\n(`go test ./router -run Page -update`).\n")
	table := func(title, where string, list []named) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| name | says |\n|---|---|\n", title, where)
		for _, n := range list {
			fmt.Fprintf(&b, "| `%s` | %s |\n", n.name, n.says)
		}
	}
	table("Routes", "Label `reason` of `pgweir_routes_total` and `pgweir_shadow_statements_total`; shown by `SHOW pgweir.last_route` and `pgweir route`.",
		reasonTable[ReasonUnknown+1:])
	table("Pins", "Label `reason` of `pgweir_pinned_clients`.", pinTable[PinNone+1:])
	return b.String()
}

func TestReasonsPage(t *testing.T) {
	const file = "../docs/reasons.md"
	want := reasonsPage()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says; go test ./router -run Page -update", file)
	}
}
