package firewall

import (
	"context"
	"fmt"
	"testing"

	"gangway/service/plan"
)

// fill has the sets hold what n networks with two uplinks need.
func fill(b *testing.B, f *Firewall, n int) {
	b.Helper()
	ops := []plan.Op{plan.InstallChains{}}
	for i := range n {
		subnet := fmt.Sprintf("10.7.%d.0/24", i)
		ops = append(ops, add(plan.SetLocal, fmt.Sprintf("%s,gway%d", subnet, i)))
		for _, uplink := range []string{"eth0", "wlan0"} {
			ops = append(ops, add(plan.SetOut, subnet+","+uplink), add(plan.SetNAT, subnet+","+uplink))
		}
	}
	apply(b, f, ops...)
}

func BenchmarkObserve(b *testing.B) {
	for _, program := range backends {
		for _, networks := range []int{1, 50, 200} {
			b.Run(fmt.Sprintf("%s/networks=%d", program, networks), func(b *testing.B) {
				newNamespace(b, "host").enter()
				f := newFirewall(b, program)
				fill(b, f, networks)
				b.ReportAllocs()
				for b.Loop() {
					if !observe(b, f).Chains {
						b.Fatal("chains aren't intact")
					}
				}
			})
		}
	}
}

// BenchmarkSwitch moves 200 networks from one uplink to another.
func BenchmarkSwitch(b *testing.B) {
	newNamespace(b, "host").enter()
	f := newFirewall(b, "iptables-nft")
	fill(b, f, 200)
	var there, back []plan.Op
	for i := range 200 {
		subnet := fmt.Sprintf("10.7.%d.0/24", i)
		there = append(there, add(plan.SetOut, subnet+",wwan0"), add(plan.SetNAT, subnet+",wwan0"))
		back = append(back, remove(plan.SetOut, subnet+",wwan0"), remove(plan.SetNAT, subnet+",wwan0"))
	}
	for b.Loop() {
		apply(b, f, there...)
		apply(b, f, back...)
	}
}

func BenchmarkInstall(b *testing.B) {
	for _, program := range backends {
		b.Run(program, func(b *testing.B) {
			host := newNamespace(b, "host")
			host.enter()
			f := newFirewall(b, program)
			ctx := context.Background()
			for b.Loop() {
				for i, o := range f.Apply(ctx, []plan.Op{plan.InstallChains{}, plan.RemoveFirewall{}}) {
					if o.Err != nil {
						b.Fatal(i, o.Err)
					}
				}
			}
		})
	}
}

func BenchmarkSetGuard(b *testing.B) {
	for _, guards := range []int{1, 50} {
		b.Run(fmt.Sprintf("guards=%d", guards), func(b *testing.B) {
			host := newNamespace(b, "host")
			host.enter()
			f := newFirewall(b, "iptables-nft")
			var specs []plan.GuardSpec
			for i := range guards {
				spec := plan.GuardSpec{Network: fmt.Sprint("net", i), Inner: fmt.Sprintf("gw6%dn", i), Outer: fmt.Sprintf("gw6%du", i)}
				host.run("ip", "link", "add", spec.Inner, "type", "veth", "peer", "name", spec.Outer)
				apply(b, f, plan.SetGuard{Spec: spec})
				specs = append(specs, spec)
			}
			b.Run("set", func(b *testing.B) {
				for b.Loop() {
					apply(b, f, plan.SetGuard{Spec: specs[0]})
				}
			})
			b.Run("observe", func(b *testing.B) {
				for b.Loop() {
					observe(b, f)
				}
			})
			b.Run("observe again", func(b *testing.B) {
				for b.Loop() {
					f.watched.valid = false
					observe(b, f)
				}
			})
		})
	}
}
