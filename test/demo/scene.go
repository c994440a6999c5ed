package main

import (
	"cmp"
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// watched is one thing that is measured all the time.
type watched struct {
	who, what string
	ipv6      bool
	probe     *lab.Probe
	result    lab.Result
}

// play runs the probes, lets the scene happen, waits for its end and prints the timeline.
func (w *world) play(ctx context.Context, s scene) error {
	w.out.heading(s.name)
	w.out.text("   " + s.story)
	if s.prepare != nil {
		if err := s.prepare(ctx, w); err != nil {
			return err
		}
	}
	// The kernel announces changes of carrier at most once a second: what came before this
	// scene shall not delay it.
	if err := pause(ctx, 1200*time.Millisecond); err != nil {
		return err
	}
	list, err := w.probes(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil { // let it be seen how things were before
		return err
	}
	for len(w.signals) > 0 {
		<-w.signals
	}
	begun := time.Now()
	monotonicBegun := monotonic()
	if err := s.act(ctx, w); err != nil {
		return err
	}
	events := []line{{0, "◆ " + s.name}}
	settled, err := w.settle(ctx, s, list, begun)
	if err != nil {
		return err
	}
	if settled.hostPrimary > 0 {
		events = append(events, line{settled.hostPrimary, "NetworkManager's primary connection is on " + s.expect})
	}
	for _, p := range list {
		p.result = p.probe.Finish()
	}
	events = append(events, w.heard(monotonicBegun)...)
	events = append(events, changes(list, begun)...)
	events = append(events, w.routersOver(begun)...)
	w.print(events)
	w.table(list, begun, s)
	if err := w.showIPv6(s, list); err != nil {
		return err
	}
	if s.verdict != nil {
		verdicts, err := s.verdict(ctx, w)
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			w.out.text("   " + v.String(w.out))
		}
	}
	if s.after != nil {
		return s.after(ctx, w)
	}
	return nil
}

func (w *world) probes(ctx context.Context) ([]*watched, error) {
	var list []*watched
	add := func(who, what string, p *lab.Probe, err error) error {
		if err == nil {
			list = append(list, &watched{who: who, what: what, probe: p})
		}
		return err
	}
	fast := lab.ProbeOptions{Interval: 5 * time.Millisecond, Timeout: 500 * time.Millisecond}
	p, err := w.lab.Laptop.ProbeSockets(ctx, lab.EchoIPv4, fast)
	if err := add("laptop", "new connections", p, err); err != nil {
		return nil, err
	}
	p, err = w.guests[0].ProbeFlow(ctx, lab.EchoIPv4, fast)
	if err := add("vm1", "one long flow", p, err); err != nil {
		return nil, err
	}
	p, err = w.guests[1].ProbeSockets(ctx, lab.EchoIPv4, fast)
	if err := add("vm2", "new connections", p, err); err != nil {
		return nil, err
	}
	p, err = w.guests[1].ProbeDNS(ctx, addrPort(w.gateway, 53), "site.example", lab.ProbeOptions{Timeout: 500 * time.Millisecond})
	if err := add("vm2", "DNS", p, err); err != nil {
		return nil, err
	}
	p, err = w.guests[0].ProbeSockets(ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 10 * time.Millisecond, Timeout: 500 * time.Millisecond})
	err = add("vm1", "IPv6 connections", p, err)
	if err == nil {
		list[len(list)-1].ipv6 = true
	}
	return list, err
}

type settlement struct{ hostPrimary time.Duration }

// settle waits until the host and all guests reach the internet by the expected uplink, or
// until nobody does.
func (w *world) settle(ctx context.Context, s scene, list []*watched, begun time.Time) (settlement, error) {
	var got settlement
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	if s.expect == "" {
		if err := w.waitProperty(ctx, root, "Manager", "State", func(v any) bool { return v == "offline" }); err != nil {
			return got, err
		}
		return got, pause(ctx, time.Second)
	}
	if err := w.lab.NM.WaitPrimary(ctx, cmp.Or(s.primary, s.expect)); err != nil {
		return got, err
	}
	if s.primary == "" {
		got.hostPrimary = time.Since(begun)
	}
	if err := w.waitProperty(ctx, w.network, "Network", "Uplink", func(v any) bool {
		p, _ := v.(godbus.ObjectPath)
		return strings.HasSuffix(string(p), "/"+strings.ReplaceAll(s.expect, "-", "_2d"))
	}); err != nil {
		return got, err
	}
	reached := time.Now()
	for _, p := range list {
		if p.ipv6 && !s.ipv6 {
			continue
		}
		if _, err := p.probe.WaitSuccess(ctx, reached); err != nil {
			return got, err
		}
	}
	return got, pause(ctx, 700*time.Millisecond) // and that it stays so
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// heard turns Gangway's signals since then into lines.
func (w *world) heard(begun time.Duration) []line {
	var lines []line
	for len(w.signals) > 0 {
		sig := <-w.signals
		if sig.Name != busName+".Manager.Switched" || len(sig.Body) != 3 {
			continue
		}
		report, _ := sig.Body[2].(map[string]godbus.Variant)
		at := func(key string) time.Duration {
			us, _ := report[key].Value().(uint64)
			return time.Duration(us) * time.Microsecond
		}
		flows, _ := report["flows-flushed"].Value().(uint32)
		lines = append(lines, line{at("nat-done") - begun, fmt.Sprintf("Gangway moved the guests %s → %s, %.1f ms after it noticed (%d stale flows dropped)",
			label(sig.Body[0]), label(sig.Body[1]), float64((at("nat-done")-at("detected")).Microseconds())/1000, flows)})
	}
	return lines
}

func label(path any) string {
	p, _ := path.(godbus.ObjectPath)
	if p == "/" || p == "" {
		return "nowhere"
	}
	return strings.ReplaceAll(string(p[strings.LastIndexByte(string(p), '/')+1:]), "_2d", "-")
}

// line is a moment of the timeline.
type line struct {
	at   time.Duration
	text string
}

// changes tells when each of what is watched lost its way and found it again.
func changes(list []*watched, begun time.Time) []line {
	var lines []line
	for _, p := range list {
		for _, o := range p.result.Outages() {
			if o.Duration() < 20*time.Millisecond && o.Lost < 3 {
				continue
			}
			if at := o.From.Sub(begun); at >= 0 && !p.ipv6 { // else it was lost in the scene before
				lines = append(lines, line{at, fmt.Sprintf("%s: %s lost", p.who, p.what)})
			}
			if !o.Open {
				lines = append(lines, line{o.To.Sub(begun), fmt.Sprintf("%s: %s back", p.who, p.what)})
			}
		}
	}
	return lines
}

func (w *world) print(lines []line) {
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].at < lines[j].at })
	w.out.text("")
	for _, l := range lines {
		w.out.text(fmt.Sprintf("   %7d ms  %s", l.at.Milliseconds(), l.text))
	}
}

// table sums up a scene.
func (w *world) table(list []*watched, begun time.Time, s scene) {
	w.out.text("", dim(w.out, fmt.Sprintf("   %-8s %-18s %14s %10s", "who", "what", "longest outage", "lost")))
	for _, p := range list {
		outage := ms(p.result.Blackout(begun))
		switch {
		case s.expect == "":
			outage = "offline"
		case p.ipv6 && !s.ipv6:
			outage = "no IPv6 there"
		}
		w.out.text(fmt.Sprintf("   %-8s %-18s %14s %10d", p.who, p.what, outage, p.result.LostAfter(begun)))
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
