package main

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"
)

// report is the account of one run of go test.
type report struct {
	out      io.Writer
	now      func() time.Time
	spoke    time.Time // when something was last printed
	packages map[string]*pkg
	builds   map[string]*strings.Builder // output of builds, by import path

	passed, failed, skipped int
	culprits                []string
}

// pkg is what is known of a package that is being tested.
type pkg struct {
	started time.Time
	tests   map[string]*test
	output  strings.Builder // of no test in particular
	ended   bool
}

type test struct {
	started time.Time
	result  string // pass, fail or skip, "" while it runs
	output  strings.Builder
}

func newReport(out io.Writer, now func() time.Time) *report {
	return &report{out: out, now: now, spoke: now(), packages: map[string]*pkg{}, builds: map[string]*strings.Builder{}}
}

func (r *report) say(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
	r.spoke = r.now()
}

// foreign is a line that isn't an event: something wrote past the testing package.
func (r *report) foreign(line string) { r.say("%s", strings.TrimRight(line, "\n")) }

func (r *report) take(e event) {
	if e.Package == "" {
		if e.Action == "build-output" {
			b := r.builds[e.ImportPath]
			if b == nil {
				b = &strings.Builder{}
				r.builds[e.ImportPath] = b
			}
			b.WriteString(e.Output)
		}
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{started: r.now(), tests: map[string]*test{}}
		r.packages[e.Package] = p
	}
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			p.ended = true
			r.end(e, p)
		}
		return
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &test{started: r.now()}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.result = e.Action
	}
}

// end accounts for a package that has ended, and tells of it.
func (r *report) end(e event, p *pkg) {
	if len(p.tests) == 0 && e.Action != "fail" {
		return // no tests
	}
	passed, skipped := 0, []string{}
	var failed []string
	for _, name := range p.leaves() {
		switch t := p.tests[name]; {
		case t.result == "pass":
			passed++
		case t.result == "skip":
			skipped = append(skipped, name)
		default: // failed, or running when the process ended
			failed = append(failed, name)
		}
	}
	r.passed += passed
	r.skipped += len(skipped)
	r.failed += len(failed)
	word := "ok  "
	if e.Action == "fail" {
		word = "FAIL"
		if len(failed) == 0 { // it didn't compile, or fell outside of any test
			r.failed++
			r.culprits = append(r.culprits, e.Package)
		}
	}
	line := fmt.Sprintf("%s %s: %d passed", word, e.Package, passed)
	if len(failed) > 0 {
		line += fmt.Sprintf(", %d failed", len(failed))
	}
	if len(skipped) > 0 {
		line += fmt.Sprintf(", %d skipped", len(skipped))
	}
	r.say("%s (%s)", line, seconds(e.Elapsed))
	for _, name := range skipped {
		r.culprits = append(r.culprits, e.Package+" "+name+" (skipped)")
		r.say("--- skipped: %s\n%s", name, strings.TrimRight(p.tests[name].output.String(), "\n"))
	}
	for _, name := range failed {
		r.culprits = append(r.culprits, e.Package+" "+name)
	}
	if e.Action == "fail" {
		r.explain(e, p, failed)
	}
	clear(p.tests) // their output may be large
	p.output.Reset()
}

// explain prints what the failed tests, those around them, and the package itself have written.
func (r *report) explain(e event, p *pkg, failed []string) {
	if b := r.builds[e.FailedBuild]; b != nil {
		r.say("%s", strings.TrimRight(b.String(), "\n"))
	}
	shown := map[string]bool{}
	for _, name := range failed {
		for i := 0; i <= len(name); i++ { // first the tests that it is part of
			if i < len(name) && name[i] != '/' || shown[name[:i]] || p.tests[name[:i]] == nil {
				continue
			}
			shown[name[:i]] = true
			if text := strings.TrimRight(p.tests[name[:i]].output.String(), "\n"); text != "" {
				r.say("%s", text)
			}
		}
	}
	if text := strings.TrimRight(p.output.String(), "\n"); text != "" {
		r.say("%s", text)
	}
}

// leaves lists the tests that count: those without subtests, and those that failed though none of
// their subtests did.
func (p *pkg) leaves() []string {
	parents, blamed := map[string]bool{}, map[string]bool{}
	for name, t := range p.tests {
		for i := range len(name) {
			if name[i] == '/' {
				parents[name[:i]] = true
				if t.result == "fail" || t.result == "" {
					blamed[name[:i]] = true
				}
			}
		}
	}
	var list []string
	for name, t := range p.tests {
		if !parents[name] || !blamed[name] && t.result != "pass" && t.result != "skip" {
			list = append(list, name)
		}
	}
	sort.Strings(list)
	return list
}

// beat says what is running, if nothing was said for a while.
func (r *report) beat() {
	if r.now().Sub(r.spoke) < silence {
		return
	}
	var lines []string
	for name, p := range r.packages {
		if p.ended {
			continue
		}
		current, since := "", p.started
		for testName, t := range p.tests {
			if t.result == "" && (current == "" || t.started.After(since)) {
				current, since = " "+testName, t.started
			}
		}
		lines = append(lines, fmt.Sprintf("...  %s%s, for %s", name, current, seconds(r.now().Sub(since).Seconds())))
	}
	if len(lines) == 0 {
		lines = []string{"...  building"}
	}
	slices.Sort(lines)
	r.say("%s", strings.Join(lines, "\n"))
}

// finish prints the sum; it tells whether all is well. err is how go test ended.
func (r *report) finish(err error) bool {
	for name, p := range r.packages {
		if !p.ended { // go test itself was killed
			r.failed++
			r.culprits = append(r.culprits, name+" (never ended)")
		}
	}
	if err != nil && r.failed == 0 {
		r.failed++
		r.culprits = append(r.culprits, fmt.Sprintf("go test: %v", err))
	}
	if len(r.culprits) > 0 {
		slices.Sort(r.culprits)
		r.say("\n%s", strings.Join(r.culprits, "\n"))
	}
	if r.passed == 0 {
		r.say("no test passed")
	}
	r.say("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
	return r.passed > 0 && r.failed == 0 && r.skipped == 0
}
