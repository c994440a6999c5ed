package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Sample is one packet of a probe.
type Sample struct {
	Seq  int
	Sent time.Time
	// RTT is the time until the answer, -1 if none came in time.
	RTT time.Duration
	// Err is why it could not be sent, or how the kernel refused it; the packet is lost then.
	Err error
	// Seen is the sender as the echo server saw it; Answer what the DNS server said.
	Seen   netip.AddrPort
	Answer Answer
}

// Lost reports whether no answer came in time.
func (s Sample) Lost() bool { return s.RTT < 0 }

// Outage is a run of lost packets.
type Outage struct {
	From time.Time // the first lost packet was sent
	To   time.Time // the next answered one was sent; if Open, the last lost one
	Lost int
	Open bool // the measurement ended in it
}

// Duration is To - From.
func (o Outage) Duration() time.Duration { return o.To.Sub(o.From) }

// Result is a finished measurement; the samples are in the order of sending. All durations are as
// coarse as the probe's interval.
type Result struct{ Samples []Sample }

// Lost counts the packets without an answer.
func (r Result) Lost() int { return r.LostAfter(time.Time{}) }

// LostAfter counts the packets without an answer that were sent at or after the time.
func (r Result) LostAfter(from time.Time) int {
	n := 0
	for _, s := range r.Samples {
		if s.Lost() && !s.Sent.Before(from) {
			n++
		}
	}
	return n
}

// Outages lists the runs of lost packets.
func (r Result) Outages() []Outage { return r.outagesAfter(time.Time{}) }

func (r Result) outagesAfter(from time.Time) []Outage {
	var out []Outage
	running := false
	for _, s := range r.Samples {
		if s.Sent.Before(from) {
			continue
		}
		switch {
		case s.Lost() && !running:
			out = append(out, Outage{From: s.Sent, To: s.Sent, Lost: 1, Open: true})
			running = true
		case running:
			o := &out[len(out)-1]
			o.To = s.Sent
			if s.Lost() {
				o.Lost++
			} else {
				o.Open, running = false, false
			}
		}
	}
	return out
}

// Blackout is the longest outage of the packets sent at or after the time, 0 if none was lost.
func (r Result) Blackout(from time.Time) time.Duration {
	var longest time.Duration
	for _, o := range r.outagesAfter(from) {
		longest = max(longest, o.Duration())
	}
	return longest
}

// Settled is the time from then until the last outage was over; 0 if there was none, false if the
// measurement ended in it.
func (r Result) Settled(from time.Time) (time.Duration, bool) {
	all := r.outagesAfter(from)
	if len(all) == 0 {
		return 0, true
	}
	last := all[len(all)-1]
	return last.To.Sub(from), !last.Open
}

// FirstSuccess is the first packet sent at or after the time that was answered.
func (r Result) FirstSuccess(after time.Time) (Sample, bool) {
	i := slices.IndexFunc(r.Samples, func(s Sample) bool { return !s.Sent.Before(after) && !s.Lost() })
	if i < 0 {
		return Sample{}, false
	}
	return r.Samples[i], true
}

// LongestGap is the longest time between two answers that followed each other, by their arrival.
func (r Result) LongestGap() time.Duration {
	var at []time.Time
	for _, s := range r.Samples {
		if !s.Lost() {
			at = append(at, s.Sent.Add(s.RTT))
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	var gap time.Duration
	for i := 1; i < len(at); i++ {
		gap = max(gap, at[i].Sub(at[i-1]))
	}
	return gap
}

// String sums the measurement up in a line.
func (r Result) String() string {
	return fmt.Sprintf("%d sent, %d lost, longest outage %s, longest gap %s", len(r.Samples), r.Lost(),
		r.Blackout(time.Time{}).Round(time.Millisecond), r.LongestGap().Round(time.Millisecond))
}
