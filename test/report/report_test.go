package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run has the real go test run packages, each given as the body of its test file.
func run(t *testing.T, packages map[string]string) (output string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"go.mod": "module x\n\ngo 1.25\n"}
	for name, body := range packages {
		files[name+"/x_test.go"] = "package " + name + "\n\nimport \"testing\"\n\n" + body
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	stream, err := cmd.Output()
	if len(stream) == 0 {
		t.Fatalf("go test said nothing: %v", err)
	}
	var b bytes.Buffer
	r := newReport(&b, time.Now)
	follow(r, bytes.NewReader(stream))
	ok = r.finish(err)
	return b.String(), ok
}

const (
	passes = "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Run(\"one\", TestA); t.Run(\"two\", TestA) }\n"
	fails  = "func TestA(t *testing.T) { t.Log(\"before\"); t.Run(\"sub\", func(t *testing.T) { t.Error(\"the cause\") }) }\n" +
		"func TestQuiet(t *testing.T) { t.Log(\"unheard\") }\n"
	failsLate = "func TestA(t *testing.T) { t.Run(\"sub\", func(*testing.T) {}); t.Error(\"the cause\") }\n"
	skips     = "func TestA(t *testing.T) { t.Skip(\"not here\") }\nfunc TestB(t *testing.T) {}\n"
	panics    = "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { panic(\"the cause\") }\n"
	broken    = "func TestA(t *testing.T) { undefinedThing() }\n"
	exits     = "func TestMain(m *testing.M) { m.Run(); println(\"the cause\"); panic(1) }\nfunc TestA(*testing.T) {}\n"
	nothing   = "var _ testing.TB\n"
)

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name     string
		packages map[string]string
		last     string
		ok       bool
		says     []string
	}{
		{"all pass", map[string]string{"a": passes, "b": passes}, "6 passed, 0 failed, 0 skipped", true, []string{"ok   x/a: 3 passed"}},
		{"a subtest fails", map[string]string{"a": fails, "b": passes}, "4 passed, 1 failed, 0 skipped", false,
			[]string{"FAIL x/a: 1 passed, 1 failed", "before", "the cause", "\nx/a TestA/sub\n"}},
		{"fails beside its subtests", map[string]string{"a": failsLate}, "1 passed, 1 failed, 0 skipped", false, []string{"the cause", "\nx/a TestA\n"}},
		{"skips", map[string]string{"a": skips}, "1 passed, 0 failed, 1 skipped", false, []string{"not here", "TestA (skipped)"}},
		{"panics", map[string]string{"a": panics}, "1 passed, 1 failed, 0 skipped", false, []string{"panic: the cause", "\nx/a TestB\n"}},
		{"doesn't compile", map[string]string{"a": broken, "b": passes}, "3 passed, 1 failed, 0 skipped", false, []string{"undefined: undefinedThing"}},
		{"fails outside of tests", map[string]string{"a": exits}, "1 passed, 1 failed, 0 skipped", false, []string{"the cause"}},
		{"no tests", map[string]string{"a": nothing}, "0 passed, 0 failed, 0 skipped", false, []string{"no test passed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			output, ok := run(t, test.packages)
			lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
			if last := lines[len(lines)-1]; last != test.last || ok != test.ok {
				t.Errorf("last line %q, ok %v; want %q, %v", last, ok, test.last, test.ok)
			}
			for _, text := range test.says {
				if !strings.Contains(output, text) {
					t.Errorf("nothing says %q", text)
				}
			}
			if strings.Contains(output, "unheard") {
				t.Error("shows the output of a test that passed")
			}
			if t.Failed() {
				t.Logf("the report:\n%s", output)
			}
		})
	}
}

func TestReportOfAStreamThatBreaksOff(t *testing.T) {
	var b bytes.Buffer
	r := newReport(&b, time.Now)
	stream := `{"Action":"start","Package":"x/a"}
{"Action":"run","Package":"x/a","Test":"TestA"}
{"Action":"pass","Package":"x/a","Test":"TestA"}
past the testing package
{"Action":"run","Pack`
	follow(r, strings.NewReader(stream))
	if r.finish(fmt.Errorf("signal: killed")) {
		t.Error("all is said to be well")
	}
	for _, text := range []string{"x/a (never ended)", "past the testing package", "0 passed, 1 failed, 0 skipped"} {
		if !strings.Contains(b.String(), text) {
			t.Errorf("%q is not in\n%s", text, b.String())
		}
	}
}

func TestBeatNamesWhatRuns(t *testing.T) {
	now := time.Unix(0, 0)
	var b bytes.Buffer
	r := newReport(&b, func() time.Time { return now })
	r.beat()
	if b.Len() > 0 {
		t.Errorf("said something at once: %s", b.String())
	}
	now = now.Add(silence)
	r.beat()
	for _, e := range []event{{Action: "start", Package: "x/a"}, {Action: "run", Package: "x/a", Test: "TestA"}} {
		r.take(e)
	}
	now = now.Add(silence)
	r.beat()
	r.beat()
	if got, want := b.String(), "...  building\n...  x/a TestA, for 30.0 s\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}
