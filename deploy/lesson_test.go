package deploy_test

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// fenced finds the blocks of a lesson that are run, with what stands behind their fence.
var fenced = regexp.MustCompile("(?ms)^```(sh|sh fails)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?")

// TestLessonsRunTheSameCommands holds that the Korean lesson has the commands of the English one,
// which lesson-test.sh runs, with the same outputs.
func TestLessonsRunTheSameCommands(t *testing.T) {
	read := func(file string) (steps []string) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fenced.FindAllStringSubmatch(string(content), -1) {
			steps = append(steps, m[1]+"\n"+m[2]+"\n"+m[3])
		}
		return steps
	}
	english, korean := read("../docs/lesson.md"), read("../docs/ko/lesson.md")
	if len(english) < 20 {
		t.Fatalf("only %d steps found", len(english))
	}
	if !slices.Equal(english, korean) {
		for i := range min(len(english), len(korean)) {
			if english[i] != korean[i] {
				t.Fatalf("step %d differs:\n%s\nand\n%s", i+1, english[i], korean[i])
			}
		}
		t.Fatalf("%d steps and %d steps", len(english), len(korean))
	}
}
