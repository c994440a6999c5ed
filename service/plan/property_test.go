package plan_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"gangway/service/plan"
	"gangway/service/vnet"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("rapid.nofailfile", "true") // the seed is printed, too
	os.Exit(m.Run())
}

func drawActs(t *rapid.T, most int) []act {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act {
		return act{
			what: rapid.IntRange(0, len(acts)-1).Draw(t, "what"),
			a:    rapid.IntRange(0, 59).Draw(t, "a"),
			b:    rapid.IntRange(0, 59).Draw(t, "b"),
			c:    rapid.IntRange(0, 59).Draw(t, "c"),
		}
	}), 1, most).Draw(t, "acts")
}

// Whatever happens, the machine comes to rest where it should be, and when all networks are
// stopped it is as if Gangway had never run.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk()
		for i, a := range drawActs(t, 25) {
			w.act(a)
			if _, err := w.converge(false); err != nil {
				t.Fatalf("step %d %v: %v", i, a, err)
			}
			if err := w.check(); err != nil {
				t.Fatalf("step %d %v: %v", i, a, err)
			}
		}
		if err := w.stopAll(); err != nil {
			t.Fatal(err)
		}
	})
}

// stopAll stops everything and compares with the twin.
func (w *walk) stopAll() error {
	for i := range w.want.Networks {
		w.want.Networks[i].Active = false
	}
	if _, err := w.converge(false); err != nil {
		return err
	}
	if left := w.m.Left(); len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	if a, b := w.m.Foreign(false), w.twin.Foreign(false); a != b {
		return fmt.Errorf("the machine is\n%s\nwithout Gangway it would be\n%s", a, b)
	}
	return nil
}

// A process that is killed at any operation, or in the middle of one, is followed by one that
// brings the machine to the same state as if nothing had happened.
func TestKilledAtAnyOperation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawActs(t, 8)
		killed, intact := newWalk(), newWalk()
		for i, a := range list {
			last := i == len(list)-1
			intact.act(a)
			killed.act(a)
			if last {
				n := rapid.IntRange(0, 40).Draw(t, "operations")
				killed.m.KillAfter(n, rapid.Bool().Draw(t, "midway"))
				_, _ = killed.converge(false)
				killed.m.Revive()
			}
			if _, err := intact.converge(false); err != nil {
				t.Fatalf("step %d %v: %v", i, a, err)
			}
			if _, err := killed.converge(last); err != nil {
				t.Fatalf("step %d %v, killed: %v", i, a, err)
			}
		}
		if err := killed.check(); err != nil {
			t.Fatal(err)
		}
		if a, b := killed.m.Text(), intact.m.Text(); a != b {
			t.Fatalf("after the kill\n%s\nwithout\n%s", a, b)
		}
	})
}

// An operation that fails for a while does no lasting harm.
func TestFailedOperation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawActs(t, 8)
		failed, intact := newWalk(), newWalk()
		for i, a := range list {
			intact.act(a)
			failed.act(a)
			if i == len(list)-1 {
				at := rapid.IntRange(1, 40).Draw(t, "operation")
				failed.m.Fail(func(n int, _ plan.Op) bool { return n == at })
				_, _ = failed.pass(false)
				failed.m.Fail(nil)
			}
			for name, w := range map[string]*walk{"intact": intact, "failed": failed} {
				if _, err := w.converge(false); err != nil {
					t.Fatalf("step %d %v, %s: %v", i, a, name, err)
				}
			}
		}
		if err := failed.check(); err != nil {
			t.Fatal(err)
		}
		if a, b := failed.m.Text(), intact.m.Text(); a != b {
			t.Fatalf("after the failure\n%s\nwithout\n%s", a, b)
		}
	})
}

// Flows whose translation doesn't fit any more are gone after each step; the others stay.
func TestFlowsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk()
		w.network("default", nil)
		for i, a := range drawActs(t, 15) {
			w.act(a)
			results, err := w.converge(false)
			if err != nil {
				t.Fatalf("step %d %v: %v", i, a, err)
			}
			have := w.m.Observed(w.want)
			for _, d := range results[len(results)-1].Networks {
				u, ok := have.Uplinks.Find(d.Uplink)
				if d.Name != "default" || !ok || d.IPv4State != "nat" {
					continue
				}
				for _, f := range w.m.Flows() {
					if d.Subnet.Contains(f.Source) && !hasAddress(u, f) {
						t.Fatalf("step %d %v: flow %+v is still there, uplink %+v", i, a, f, u)
					}
				}
				w.m.AddFlow(vnet.Flow{Protocol: 17, Source: d.Subnet.Addr().Next().Next(), Destination: ip("203.0.113.1"), Translated: u.Addresses[0].Addr()})
				if len(w.m.Flows()) == 0 {
					t.Fatal("no flows")
				}
			}
		}
	})
}

func hasAddress(u vnet.Uplink, f vnet.Flow) bool {
	for _, p := range u.Addresses {
		if p.Addr() == f.Translated {
			return true
		}
	}
	return false
}
