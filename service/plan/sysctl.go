package plan

import (
	"gangway/service/vnet"
)

func forwarding(ifname string) string  { return "net/ipv4/conf/" + ifname + "/forwarding" }
func rpFilter(ifname string) string    { return "net/ipv4/conf/" + ifname + "/rp_filter" }
func disableIPv6(ifname string) string { return "net/ipv6/conf/" + ifname + "/disable_ipv6" }

// acceptRA is whether the kernel goes by router advertisements. On a bridge of ours it never may: the host
// would gain addresses and a default route by its own guests.
func acceptRA(ifname string) string { return "net/ipv6/conf/" + ifname + "/accept_ra" }

// ipv6Off is the bridge's disable_ipv6.
func ipv6Off(d *Decision) string {
	if d.settings.IPv6Method == "off" {
		return "1"
	}
	return "0"
}

// SysctlKeys lists the sysctls, beside forwarding and rp_filter of every link, and forwarding and proxy_ndp of
// IPv6, that Plan wants to see, as far as what was seen tells.
func SysctlKeys(want Want, seen *vnet.Observed) []string {
	// Whether the kernel has IPv6, and forwards by interface.
	keys := []string{disableIPv6("all"), forceForwarding("all")}
	for _, w := range want.Networks {
		if w.Active {
			keys = append(keys, disableIPv6(w.Settings.Bridge), acceptRA(w.Settings.Bridge), forceForwarding(w.Settings.Bridge))
		}
	}
	return append(keys, uplinkKeys(seen)...)
}

// planSysctls sets what our bridges need, and borrows on the uplinks what forwarding needs
// there: the kernel asks the interface that a packet came in by whether it forwards, so
// one flag at each end is enough and the host's global switch stays as it is.
func (b *builder) planSysctls() {
	have := b.have.Kernel.Sysctls
	borrowed := map[string]bool{}
	borrowIn := func(phase int) func(key, value string) {
		return func(key, value string) {
			if !borrowed[key] && have[key] != value {
				b.add(phase, BorrowSysctl{Key: key, Value: value})
			}
			borrowed[key] = true
		}
	}
	borrow := borrowIn(phaseSysctl)
	b.borrowForwarding6(borrowIn(phaseSysctl6)) // before a bridge begins to forward
	for _, d := range b.active() {
		value := "0"
		if d.routes4() {
			value = "1"
		}
		if have[forwarding(d.Bridge)] != value {
			b.add(phaseSysctl, SetSysctl{Key: forwarding(d.Bridge), Value: value})
		}
		if v, known := have[disableIPv6(d.Bridge)]; known && v != ipv6Off(d) {
			b.add(phaseSysctl, SetSysctl{Key: disableIPv6(d.Bridge), Value: ipv6Off(d)})
		}
		if v, known := have[acceptRA(d.Bridge)]; known && v != "0" {
			b.add(phaseSysctl, SetSysctl{Key: acceptRA(d.Bridge), Value: "0"})
		}
		b.setBridge6(d)
		if !d.routes4() {
			continue
		}
		for _, u := range d.outs {
			if _, saved := b.have.Kernel.SavedSysctls[forwarding(u.Interface)]; saved || have[forwarding(u.Interface)] != "1" {
				borrow(forwarding(u.Interface), "1")
			}
		}
		b.borrowLooseRPFilter(d, borrow)
	}
	for _, key := range sortedKeys(b.have.Kernel.SavedSysctls) {
		if borrowed[key] {
			continue
		}
		b.add(phaseReturn, ReturnSysctl{Key: key, Value: b.returnable(key)})
	}
}

// borrowLooseRPFilter sees to it that answers reach guests who leave by another uplink than
// the host's default: strict reverse path filtering (RFC 3704 2.2) would drop them, since
// the host's own way back to the sender is another. Loose (2) accepts any sender that there
// is a route to. The kernel takes the larger of the interface's value and that of "all".
func (b *builder) borrowLooseRPFilter(d *Decision, borrow func(key, value string)) {
	have := b.have.Kernel.Sysctls
	if d.Uplink == "" || d.bound.Index == b.hostEgress() {
		return
	}
	key := rpFilter(d.Uplink)
	_, saved := b.have.Kernel.SavedSysctls[key]
	strict := have[key] == "1" || have[key] == "0" && have[rpFilter("all")] == "1"
	if saved || strict {
		borrow(key, "2")
	}
}

// hostEgress is the link of the host's own best IPv4 default route in the kernel, 0 if none.
func (b *builder) hostEgress() int {
	link, bits, metric := 0, 0, uint32(0)
	for _, r := range b.have.Kernel.Routes {
		if r.Table != mainTable || !r.Dst.Addr().Is4() || r.Dst.Bits() > defaultBits || r.Type != vnet.RouteUnicast {
			continue
		}
		if link == 0 || r.Dst.Bits() > bits || r.Dst.Bits() == bits && r.Metric < metric {
			link, bits, metric = r.Link, r.Dst.Bits(), r.Metric
		}
	}
	return link
}

// returnable is the value that we set the borrowed sysctl to, "" when the borrowed value must
// not come back: somebody else needs what we needed (ip_forward was switched on since).
func (b *builder) returnable(key string) string {
	if value, ok := b.returnable6(key); ok {
		return value
	}
	for _, l := range b.have.Kernel.Links {
		switch key {
		case forwarding(l.Name):
			if b.have.Kernel.Sysctls[forwarding("all")] == "1" {
				return ""
			}
			return "1"
		case rpFilter(l.Name):
			return "2"
		}
	}
	return "" // the interface is gone
}
