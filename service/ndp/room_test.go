package ndp

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gangway/service/plan"
	"gangway/service/vnet"
)

func TestCloseEndsEverything(t *testing.T) {
	l := newLab(t)
	before := goleak.IgnoreCurrent()
	r, err := New(l.options)
	must(t, err)
	up := l.uplink("a")
	l.guest(guestMAC)
	k := dump(t)
	_, err = r.Observe(t.Context(), &k, l.uplinks)
	must(t, err)
	if len(r.uplinks) != 1 || len(r.taps) != 1 || r.uplinks[up] == nil {
		t.Errorf("%d uplinks, %d taps", len(r.uplinks), len(r.taps))
	}
	watched := make(chan error)
	go func() { watched <- r.Watch(context.Background(), func(string) {}) }()
	r.Close()
	r.Close()
	must(t, <-watched)
	goleak.VerifyNone(t, before)
	if _, err := r.Observe(t.Context(), &k, nil); err == nil {
		t.Error("a closed room observes")
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error)
	go func() { watched <- l.room.Watch(ctx, func(string) {}) }()
	cancel()
	must(t, <-watched)
	if _, err := l.room.Observe(ctx, &vnet.Kernel{}, nil); err == nil {
		t.Error("observed without time")
	}
}

func TestAGuestThatAsksWithoutEnd(t *testing.T) {
	t.Parallel()
	p, now := tap{}, time.Unix(1000, 0)
	answered := func(times int) (n int) {
		for range times {
			if p.mayAnswer(now) {
				n++
			}
		}
		return n
	}
	if n := answered(1000); n != answerBurst {
		t.Errorf("%d answers at once", n)
	}
	now = now.Add(5*answerPause + answerPause/2)
	if n := answered(1000); n != 5 {
		t.Errorf("%d answers half a second later", n)
	}
	now = now.Add(time.Hour)
	if n := answered(1000); n != answerBurst {
		t.Errorf("%d answers an hour later", n)
	}
}

func TestGuestPortsAreThoseOfTheNetworksBridge(t *testing.T) {
	t.Parallel()
	k := vnet.Kernel{Links: []vnet.Link{
		{Index: 1, Name: "ours", Kind: "bridge", Alias: plan.AliasPrefix + "x"}, {Index: 2, Name: "plain", Kind: "bridge"},
		{Index: 3, Name: "tap3", Master: 1, Up: true, Carrier: true}, {Index: 4, Name: "tap4", Master: 2},
		{Index: 5, Name: "gw6n", Master: 1, Alias: plan.InnerAliasPrefix + "x"}, {Index: 6, Name: "gw6h", Master: 2, Group: plan.GroupPair},
		{Index: 7, Name: "inner", Master: 2}, {Index: 8, Name: "bond0", Kind: "bond"}, {Index: 9, Name: "eth0", Master: 8},
	}}
	r := &Room{}
	r.look(&k)
	for _, test := range []struct {
		network, bridge string
		index           int
		ports           []int
		linked          bool
	}{
		{"x", "", 1, []int{3}, true},
		{"x", "plain", 1, []int{3}, true}, // it was renamed
		{"y", "plain", 2, []int{4}, true},
		{"y", "ours", 0, nil, false}, // another network's by now
		{"y", "bond0", 0, nil, false},
		{"y", "", 0, nil, false},
	} {
		n := newNetwork()
		n.bridge, n.inner = test.bridge, "inner"
		r.place(test.network, n)
		if ports := slices.Sorted(maps.Keys(n.ports)); n.index != test.index || !slices.Equal(ports, test.ports) || n.linked != test.linked {
			t.Errorf("%s on %q: bridge %d, ports %v, linked %v", test.network, test.bridge, n.index, ports, n.linked)
		}
	}
}
