package plan_test

import (
	"fmt"
	"testing"

	"gangway/service/vnet"
)

// Each step of each scenario is broken off before, and in the middle of, each of its
// operations, and a new process has to come to the state of the undisturbed one.
func TestKilledInScenarios(t *testing.T) {
	for name, steps := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for last := range steps {
				total, want := runSteps(t, steps[:last+1], -1, false)
				for n := range total {
					for _, midway := range []bool{false, true} {
						if _, got := runSteps(t, steps[:last+1], n, midway); got != want {
							t.Fatalf("%s, killed after %d operations (midway %v):\n%s\nundisturbed:\n%s", steps[last].name, n, midway, got, want)
						}
					}
				}
			}
		})
	}
}

// runSteps runs the steps and returns the number of the last one's operations and the state.
// The process is killed after n of these, if n isn't negative.
func runSteps(t *testing.T, steps []step, n int, midway bool) (operations int, state string) {
	t.Helper()
	w := newWorld()
	for i, s := range steps {
		s.do(w)
		first := s.first
		if i == len(steps)-1 {
			w.m.Fail(nil) // begins to count
			if n >= 0 {
				w.m.KillAfter(n, midway)
				_, _ = w.converge(first)
				w.m.Revive()
				first = true
			}
		}
		if _, err := w.converge(first); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return w.m.Count(), w.m.Text()
}

// A bridge that a killed process left without its alias is completed where it is wanted, at
// once and without the network failing meanwhile, and removed where it isn't.
func TestHalfMadeBridge(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		w := newWorld()
		start(w)
		before := w.m.Text()
		w.m.KillAfter(1, true) // RememberSubnet, and half of CreateBridge
		_, _ = w.converge(true)
		w.m.Revive()
		if text := w.m.Text(); text == before {
			t.Fatal("nothing was left half made")
		}
		w.find("default").Active = wanted
		results, err := w.converge(true)
		if err != nil {
			t.Fatal(err)
		}
		if state := results[0].Networks[0].State; wanted && state != vnet.Active {
			t.Errorf("the network is %s at first", state)
		}
		if !wanted && w.m.Text() != before {
			t.Errorf("the machine is\n%s\nwas\n%s", w.m.Text(), before)
		}
	}
}
