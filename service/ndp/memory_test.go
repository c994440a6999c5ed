package ndp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// clocks are a room's, to be moved.
type clocks struct{ now, wall atomic.Int64 }

func (c *clocks) use(o *Options) {
	c.now.Store(int64(1000 * time.Second))
	c.wall.Store(int64(1e9 * time.Second))
	o.now = func() time.Time { return time.Unix(0, c.now.Load()) }
	o.wall = func() time.Time { return time.Unix(0, c.wall.Load()).UTC() }
}

func (c *clocks) pass(d time.Duration) {
	c.now.Add(int64(d))
	c.wall.Add(int64(d))
}

// again closes the room and makes another in the same place.
func (l *lab) again() {
	l.Helper()
	l.room.Close()
	l.room = l.newRoom()
}

func TestMemoryOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	var c clocks
	l := newLab(t, c.use)
	a, b := known(routerA, macA, true, prefixA), known(routerB, macB, false, prefixB)
	l.apply(plan.Teach{Network: l.network, Uplink: "eth0", Routers: []vnet.Router{a, b}})
	l.again()
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{a, b}})
	l.withdraw(a)
	c.pass(time.Hour)
	l.again()
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{b}, Retired: prefixes(prefixA)})

	// Two hours after the withdrawal, whoever lived then, it is over, and whoever watches is poked.
	c.pass(time.Hour - time.Second)
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{b}, Retired: prefixes(prefixA)})
	before := l.pokes.Load()
	c.pass(time.Second)
	l.room.hurry()
	eventually(t, "a poke", func() bool { return l.pokes.Load() > before })
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{b}})
	c.pass(saveDelay)
	l.room.hurry()
	eventually(t, "the disk", func() bool { return !strings.Contains(l.saved(), prefixA) })
}

func TestRetiredWhileNobodyWasThere(t *testing.T) {
	t.Parallel()
	var c clocks
	l := newLab(t, c.use)
	l.withdraw(known(routerA, macA, true, prefixA))
	c.pass(retirement)
	l.again()
	if have := l.observe().Taught; len(have) > 0 {
		t.Errorf("remembered: %v", have)
	}
}

// A clock that is set back, or wasn't set yet, must not make the two hours years.
func TestTimesOfTheFutureAreNow(t *testing.T) {
	t.Parallel()
	var c clocks
	l := newLab(t, c.use)
	l.withdraw(known(routerA, macA, true, prefixA))
	c.wall.Store(0)
	l.again()
	l.wantTaught(vnet.Taught{Retired: prefixes(prefixA)})
	c.pass(retirement)
	if have := l.observe().Taught; len(have) > 0 {
		t.Errorf("remembered: %v", have)
	}
}

func TestAMemoryThatIsNoneIsPutAside(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"broken": `{"version":1,"networks":{"x":`, "another version": `{"version":2}`, "no object": `null`, "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			file := filepath.Join(l.options.StateDir, fileName)
			must(t, os.WriteFile(file, []byte(content), 0o600))
			l.again()
			if have := l.observe().Taught; len(have) > 0 {
				t.Errorf("remembered: %v", have)
			}
			if aside, err := os.ReadFile(file + ".corrupt"); err != nil || string(aside) != content {
				t.Errorf("aside: %q, %v", aside, err)
			}
			l.apply(plan.Teach{Network: l.network, Routers: []vnet.Router{known(routerA, macA, true)}})
			l.again()
			l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true)}})
		})
	}
}

// What can't be used of it doesn't keep the rest from being used.
func TestAMemoryWithStrangeThingsInIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := filepath.Join(l.options.StateDir, fileName)
	must(t, os.WriteFile(file, []byte(`{"version":1,"more":1,"networks":{"../x":{"routers":[]},"`+l.network+`":{"routers":[
{"address":"fe80::1","mac":"x","default":true},{"address":"2001:db8::1","mac":"`+macA+`","default":true},
{"address":"192.0.2.1","mac":"`+macA+`","default":true},
{"address":"fe80::2","mac":"`+macA+`","default":true,"heard":[{"at":"2026-01-01T00:00:00Z","body":"AAAA"}]},
{"address":"`+routerA+`","mac":"`+macA+`","default":true}]}}}`), 0o600))
	l.again()
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known("fe80::2", macA, true), known(routerA, macA, true)}})
}

func TestADiskThatCannotBeWrittenIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, os.RemoveAll(l.options.StateDir))
	must(t, os.WriteFile(l.options.StateDir, nil, 0o600))
	op := plan.Teach{Network: l.network, Routers: []vnet.Router{known(routerA, macA, true)}}
	if err := l.room.Apply(t.Context(), []plan.Op{op})[0].Err; err == nil || !strings.Contains(err.Error(), fileName) {
		t.Errorf("error %v", err)
	}
	l.wantTaught(vnet.Taught{Routers: []vnet.Router{known(routerA, macA, true)}})
	// It is tried again.
	must(t, os.Remove(l.options.StateDir))
	must(t, os.Mkdir(l.options.StateDir, 0o755))
	l.apply(op)
	if !strings.Contains(l.saved(), routerA) {
		t.Error("it isn't on disk")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a room without a place")
	}
}

// In steady state nothing is written; what a router says anew is, before long.
func TestNewsOfARouterReachTheDisk(t *testing.T) {
	t.Parallel()
	var c clocks
	l := newLab(t, c.use)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.observe()
	l.send(ns, "eth0", advertisement(routerA, macA, 1800, pio(prefixA, 3600)))
	l.advertised(up, known(routerA, macA, true, prefixA))
	l.teach(up)
	before := l.saved()
	heard := func() (saved []savedBody) {
		var all savedMemory
		data, err := os.ReadFile(filepath.Join(l.options.StateDir, fileName))
		must(t, err)
		must(t, json.Unmarshal(data, &all))
		return all.Networks[l.network].Routers[0].Heard
	}
	c.pass(time.Minute)
	l.send(ns, "eth0", advertisement(routerA, macA, 1700, pio(prefixA, 3500)))
	later := l.room.now()
	eventually(t, "it to be heard", func() bool {
		l.room.mu.Lock()
		defer l.room.mu.Unlock()
		for _, lesson := range l.room.networks[l.network].lessons {
			return lesson.bodies[0].at.Equal(later)
		}
		return false
	})
	c.pass(saveDelay)
	l.observe()
	if l.saved() != before {
		t.Error("the disk was written though nothing is new")
	}
	l.send(ns, "eth0", advertisement(routerA, macA, 1700, pio(prefixA, 3500), rdnss("2001:db8::53")))
	eventually(t, "the disk", func() bool {
		c.pass(saveDelay)
		l.observe()
		return l.saved() != before
	})
	if saved := heard(); len(saved) != 1 || len(saved[0].Body) != 16+32+24 {
		t.Errorf("on disk: %v", saved)
	}
	l.apply(plan.Teach{Network: l.network, Uplink: up, Routers: []vnet.Router{known(routerA, macA, true, prefixA)}})
}
