package plan

import (
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// Want is what is asked for: definitions, what was started and attached, and what is
// remembered of earlier choices.
type Want struct {
	// Networks are sorted by name.
	Networks []WantedNetwork
	// UplinkPrefixes are the prefixes that uplinks have ever used, as far as remembered.
	UplinkPrefixes []netip.Prefix
	// NeverShared are the UUIDs of the connections on whose links no guest is to appear.
	NeverShared []string
	// Seed is the machine's identity, for stable MAC addresses.
	Seed string
}

// WantedNetwork is one network as it is wanted.
type WantedNetwork struct {
	Name     string
	Settings vnet.Settings // Bridge is not empty
	// Problem says why the definition can't be used, "" if it can.
	Problem string
	// Active tells whether it is to run.
	Active bool
	// Remembered is the subnet that an automatic choice fell on before, zero if none.
	Remembered netip.Prefix
	// Remembered6 is the /64 of its own that it had before, zero if none.
	Remembered6 netip.Prefix
	Ports       []vnet.PortRef
}

// Result is what Plan found out.
type Result struct {
	// Ops are to be carried out in this order: what must go at once, then adds, then deletes.
	Ops []Op
	// Networks has one Decision for each wanted network, in the same order.
	Networks []Decision
	// Moored is the uplink that automatic networks are bound to, "" if none.
	Moored string
}

// Decision is what was decided for one network.
type Decision struct {
	Name   string
	Active bool
	Bridge string
	State  vnet.NetworkStatus
	Reason string
	// Uplink is the interface that its default route is bound to, "" if none.
	Uplink string
	// Subnet and Address are zero when it has no IPv4.
	Subnet, Address       netip.Prefix
	IPv4State, IPv4Reason string
	IPv6State, IPv6Reason string
	// IPv6Prefixes are those that guests may use now, sorted.
	IPv6Prefixes []netip.Prefix
	Upstreams    []vnet.Upstream
	Renumbered   *vnet.Renumbered

	settings vnet.Settings
	outs     []vnet.Uplink // interfaces that guests may leave by
	table    uint32
	bound    vnet.Uplink  // valid when Uplink isn't ""
	ports    []string     // interfaces that are ports, or are to be
	uplink6  *vnet.Uplink // the bridge that guests are bridged to for IPv6, nil if none
	router   *router      // what their own bridge is to them as a router, nil if none
}

// Uplink6 is the interface that guests' IPv6 goes by, "" if none.
func (d *Decision) Uplink6() string {
	switch {
	case d.router != nil:
		return d.router.up.Interface
	case d.uplink6 != nil:
		return d.uplink6.Interface
	}
	return ""
}

// routes4 tells whether guests' IPv4 is forwarded at all.
func (d *Decision) routes4() bool {
	return d.Subnet.IsValid() && (d.settings.IPv4Method == "nat" || d.settings.IPv4Method == "routed")
}

// Plan decides. It is pure: the same arguments give the same result.
func Plan(want Want, have vnet.Observed) Result {
	b := &builder{want: want, have: have}
	b.decide()
	b.planClashes()
	b.planMemory()
	b.planMemory6()
	b.planBridges()
	b.planAddress6()
	b.planSysctls()
	b.planForward()
	b.planFirewall()
	b.planRouting()
	b.planRouting6()
	b.planProxies()
	b.planFlows()
	b.planPairs()
	b.planTeaching()
	b.planServing()
	b.planServers()
	b.planPorts()
	var ops []Op
	for _, phase := range b.phases {
		ops = append(ops, phase...)
	}
	return Result{Ops: ops, Networks: b.decisions, Moored: b.moored}
}

// The phases of a pass, in order. What carries packets comes before what may take longer,
// and everything is added before anything is deleted, so that a switch has no gap; only what
// is given up is different: a subnet, whose packets would go astray without its bridge, and
// an address that clashes, for whose deletion the host's own connectivity waits.
const (
	phaseGiveUp = iota
	phaseClash
	phaseGate     // nobody hears the routers of a link that is left
	phaseWithdraw // before IPv4 moves: a guest whose default router is gone falls back to IPv4 at once
	phaseMemory
	phaseBridge
	phaseSysctl
	phaseFilter
	phaseRoute
	phaseFlows
	phaseSysctl6 // IPv6 comes behind: there are more steps to it, and guests fall back to IPv4 meanwhile
	phaseRoute6
	phaseTeach
	phasePair
	phaseAnnounce
	phaseUpstream
	phaseServer
	phasePort
	phaseRemoveRoute
	phaseRemoveFilter
	phaseRemoveServer
	phaseRemoveBridge
	phaseRemoveFirewall // when no guest is there any more that it keeps from the uplinks
	phaseReturn
	phaseRecord
	phases
)

// builder collects the operations of one plan.
type builder struct {
	want      Want
	have      vnet.Observed
	decisions []Decision
	own       map[string]vnet.Link // see ours; nil before every network's bridge is decided
	moored    string
	phases    [phases][]Op
}

// mac is the MAC address of the network's bridge.
func (b *builder) mac(network string) string { return vnet.BridgeMAC(b.want.Seed, network).String() }

func (b *builder) add(phase int, op Op) { b.phases[phase] = append(b.phases[phase], op) }

// changed tells whether the phase has an operation for which is is true.
func (b *builder) changed(phase int, is func(Op) bool) bool {
	return slices.ContainsFunc(b.phases[phase], is)
}

// decide settles every network's bridge, uplink and subnet.
func (b *builder) decide() {
	if up, _ := bindAuto("follow", &b.have.Uplinks); up != nil {
		b.moored = up.Interface
	}
	bridges := map[string]string{} // bridge to the network that has it
	for _, w := range b.want.Networks {
		d := Decision{Name: w.Name, Active: w.Active && w.Problem == "", Bridge: w.Settings.Bridge,
			settings: w.Settings, State: vnet.Inactive, IPv4State: "off", IPv6State: "off"}
		switch {
		case w.Problem != "":
			d.State, d.Reason = vnet.FailedNetwork, w.Problem
		case w.Active:
			if other, taken := bridges[d.Bridge]; taken {
				d.fail("its bridge %s is network %s's", d.Bridge, other)
			} else if l, exists := b.have.Kernel.LinkByName(d.Bridge); exists && l.Alias != AliasPrefix+w.Name && !(halfMade(l) && l.MAC == b.mac(w.Name)) {
				d.fail("interface %s exists and is not Gangway's", d.Bridge)
			} else {
				bridges[d.Bridge] = w.Name
				d.State = vnet.Active
			}
		}
		b.decisions = append(b.decisions, d)
	}
	b.own = b.findOurs()
	b.decideSubnets()
	for i := range b.decisions {
		d := &b.decisions[i]
		if d.Active {
			b.decideIPv4(d)
			b.decideIPv6(d)
		}
	}
}

func (b *builder) decideIPv4(d *Decision) {
	method := d.settings.IPv4Method
	switch {
	case method == "off":
		d.IPv4State, d.IPv4Reason = "off", "IPv4 is off by the network's settings"
		return
	case !d.Subnet.IsValid():
		d.IPv4State = "off" // the reason was given with the choice of the subnet
		return
	case method == "isolated":
		d.IPv4State, d.IPv4Reason = "isolated", "guests reach each other and the host only, by the network's settings"
		return
	}
	ups := b.uplinksFor(method)
	bound, reason := bind(d.settings, ups)
	d.outs = outs(d.settings, ups)
	d.table = table(d.settings, &b.have.Kernel)
	if ups != &b.have.Uplinks && d.settings.Uplink == "auto" {
		d.table += TableBarred
	}
	d.IPv4Reason = reason
	if bound == nil {
		d.IPv4State = "offline"
		return
	}
	d.Uplink, d.bound, d.IPv4State = bound.Interface, *bound, method
	d.Upstreams = upstreams(d, &b.have.Uplinks)
}
