package ndp

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

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
