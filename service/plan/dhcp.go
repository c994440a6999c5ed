package plan

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// planServers keeps one dnsmasq for each network with IPv4.
func (b *builder) planServers() {
	if b.have.BlindServers {
		return
	}
	running := map[string]vnet.Server{}
	for _, s := range b.have.Servers {
		running[s.Network] = s
	}
	bridges := b.ours()
	for _, d := range b.active() {
		if !d.Subnet.IsValid() {
			continue
		}
		spec := serverSpec(d)
		s, ok := running[d.Name]
		delete(running, d.Name)
		if ok && s.Digest == spec.Digest() && bridges[d.Name].Name != d.Bridge {
			// Somebody deleted its bridge, and its sockets are bound to the index of that. It
			// goes before the bridge is there again, or the next pass might not see the need.
			b.add(phaseClash, StopServer{Network: d.Name})
			ok = false
		}
		fresh := !ok || s.Digest != spec.Digest()
		switch {
		case fresh:
			b.add(phaseServer, StartServer{Spec: spec})
			b.add(phaseServer, SetUpstreams{Network: d.Name, Upstreams: d.Upstreams})
			continue
		case s.HostsDigest != spec.HostsDigest():
			b.add(phaseServer, SetHosts{Spec: spec})
		}
		if !s.KnownUpstreams || !slices.EqualFunc(s.Upstreams, d.Upstreams, sameUpstream) {
			b.add(phaseUpstream, SetUpstreams{Network: d.Name, Upstreams: d.Upstreams})
		}
	}
	for _, name := range sortedKeys(running) {
		b.add(phaseRemoveServer, StopServer{Network: name})
	}
}

func sameUpstream(a, b vnet.Upstream) bool {
	return a.Address == b.Address && a.Interface == b.Interface && slices.Equal(a.Domains, b.Domains)
}

func serverSpec(d *Decision) ServerSpec {
	spec := ServerSpec{
		Network:   d.Name,
		Bridge:    d.Bridge,
		Address:   d.Address,
		Router:    d.routes4(),
		Domain:    d.settings.Domain,
		MTU:       d.settings.MTU,
		LeaseTime: LeaseTime,
	}
	for _, h := range d.settings.DHCPHosts {
		if h.Address.IsValid() && !vnet.Assignable(d.Subnet, h.Address) {
			h.Address = netip.Addr{} // of another subnet: the name still holds
		}
		if h.Address.IsValid() || h.Hostname != "" {
			spec.Hosts = append(spec.Hosts, h)
		}
	}
	if d.settings.DHCP {
		spec.First, spec.Last = dynamicRange(d.Subnet)
	}
	return spec
}

// maxDynamic bounds the dynamic range: dnsmasq keeps leases in memory.
const maxDynamic = 1 << 16

// dynamicRange is all of the subnet but the gateway, up to maxDynamic addresses.
func dynamicRange(subnet netip.Prefix) (first, last netip.Addr) {
	first = vnet.Gateway(subnet).Next()
	last = vnet.LastAddress(subnet).Prev()
	lo, hi := binary.BigEndian.Uint32(first.AsSlice()), binary.BigEndian.Uint32(last.AsSlice())
	if hi-lo >= maxDynamic {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], lo+maxDynamic-1)
		last = netip.AddrFrom4(a)
	}
	return first, last
}

// upstreams says where guests' queries go: to the servers of the uplink that the network is
// bound to, out by that uplink; to the host's own resolver where that agrees with the host;
// and for certain domains to the servers of other links that have those.
func upstreams(d *Decision, ups *vnet.Uplinks) []vnet.Upstream {
	if ups.Stub.IsValid() && d.Uplink == ups.Primary {
		return []vnet.Upstream{{Address: ups.Stub}}
	}
	var list []vnet.Upstream
	for _, ns := range d.bound.Nameservers {
		list = append(list, vnet.Upstream{Address: ns, Interface: queryInterface(ns, d.Uplink)})
	}
	if len(list) == 0 && d.bound.Kind == vnet.VPN {
		// A VPN that brings no servers: the host goes on asking those below it, so do we.
		if below, ok := ups.Find(ups.Physical); ok {
			for _, ns := range below.Nameservers {
				list = append(list, vnet.Upstream{Address: ns})
			}
		}
	}
	for _, u := range ups.Upstreams {
		if slices.ContainsFunc(d.outs, func(o vnet.Uplink) bool { return o.Interface == u.Interface }) {
			list = append(list, u)
		}
	}
	return list
}

// queryInterface binds queries to the uplink, except those to the host itself.
func queryInterface(ns netip.Addr, uplink string) string {
	if ns.IsLoopback() {
		return ""
	}
	return uplink
}
