package dnsmasq

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// BenchmarkStart shows what n starts at once cost until all serve, and what a pass costs then.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{1, 20, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkStart(b, n) })
	}
}

func benchmarkStart(b *testing.B, n int) {
	bus, err := godbus.Connect(labBus)
	if err != nil {
		b.Fatal(err)
	}
	defer bus.Close()
	dir, err := os.MkdirTemp("/run", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	r, err := New(Options{RuntimeDir: dir + "/run", StateDir: dir + "/state", Bus: bus, BusAddress: labBus})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var starts, tells, stops []plan.Op
	var make, remove strings.Builder
	for i := range n {
		spec := testSpec(fmt.Sprintf("n%d", i), fmt.Sprintf("10.77.%d.1/24", i))
		fmt.Fprintf(&make, "link add %[1]s type bridge\naddr add %[2]s brd + dev %[1]s\nlink set %[1]s up\n", spec.Bridge, spec.Address)
		fmt.Fprintf(&remove, "link del %s\n", spec.Bridge)
		starts = append(starts, plan.StartServer{Spec: spec})
		tells = append(tells, plan.SetUpstreams{Network: spec.Network, Upstreams: []vnet.Upstream{via("192.0.2.1", "")}})
		stops = append(stops, plan.StopServer{Network: spec.Network})
	}
	sh(b, "ip -b - <<END\n%sEND\n", make.String())
	defer func() { sh(b, "ip -b - <<END\n%sEND\n", remove.String()) }()
	apply := func(ops []plan.Op) time.Duration {
		began := time.Now()
		for _, o := range r.Apply(context.Background(), ops) {
			if o.Err != nil {
				b.Fatal(o.Err)
			}
		}
		return time.Since(began)
	}
	var started, told, observed, stopped time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		started += apply(starts)
		told += apply(tells)
		began := time.Now()
		if servers, _, err := r.Observe(context.Background()); err != nil || len(servers) != n {
			b.Fatal(len(servers), err)
		}
		observed += time.Since(began)
		stopped += apply(stops)
	}
	for unit, d := range map[string]time.Duration{"start-ms": started, "tell-ms": told, "observe-ms": observed, "stop-ms": stopped} {
		b.ReportMetric(float64(d)/float64(rounds)/1e6, unit)
	}
}
