package uplink

import (
	nm "github.com/Wifx/gonetworkmanager/v3"
	"golang.org/x/sys/unix"

	"gangway/service/vnet"
)

// scene builds the kernel's and NetworkManager's side of a case. A link's index is 1 more
// than its place.
type scene struct {
	k     vnet.Kernel
	pic   picture
	holds holds
}

func newScene() *scene {
	s := &scene{}
	s.link("lo", "").Loopback = true
	s.address("lo", "127.0.0.1/8").Scope = unix.RT_SCOPE_HOST
	return s
}

func (s *scene) link(name, kind string) *vnet.Link {
	s.k.Links = append(s.k.Links, vnet.Link{Index: len(s.k.Links) + 1, Name: name, Kind: kind, Type: 1, MTU: 1500, Up: true, Carrier: true})
	return &s.k.Links[len(s.k.Links)-1]
}

func (s *scene) index(name string) int {
	l, ok := s.k.LinkByName(name)
	if !ok {
		panic("no link " + name)
	}
	return l.Index
}

func (s *scene) address(name, prefix string) *vnet.Address {
	s.k.Addresses = append(s.k.Addresses, vnet.Address{Link: s.index(name), Prefix: net4(prefix)})
	return &s.k.Addresses[len(s.k.Addresses)-1]
}

func (s *scene) route(name, dst, via string, metric uint32) *vnet.Route {
	r := vnet.Route{Table: tableMain, Dst: net4(dst), Link: s.index(name), Metric: metric, Protocol: unix.RTPROT_STATIC, Type: vnet.RouteUnicast}
	if via != "" {
		r.Gateway = addr(via)
	}
	s.k.Routes = append(s.k.Routes, r)
	return &s.k.Routes[len(s.k.Routes)-1]
}

// device adds an activated device with a profile of NetworkManager's.
func (s *scene) device(name string, kind nm.NmDeviceType) *device {
	s.pic.nm = true
	s.pic.devices = append(s.pic.devices, device{name: name, kind: kind, state: nm.NmDeviceStateActivated,
		active: &connection{id: name + " profile", uuid: name + " uuid", state: nm.NmActiveConnectionStateActivated, devices: []string{name}}})
	return &s.pic.devices[len(s.pic.devices)-1]
}

// office is a laptop with Ethernet (metric 100, primary) and Wi-Fi (metric 600).
func office() *scene {
	s := newScene()
	s.link("eth0", "")
	s.link("wlan0", "")
	s.address("eth0", "10.1.0.5/24")
	s.address("wlan0", "10.2.0.5/24")
	s.route("eth0", "0.0.0.0/0", "10.1.0.1", 100)
	s.route("wlan0", "0.0.0.0/0", "10.2.0.1", 600)
	eth := s.device("eth0", nm.NmDeviceTypeEthernet)
	eth.active.default4, eth.ip4.gateway = true, addr("10.1.0.1")
	s.device("wlan0", nm.NmDeviceTypeWifi).ip4.gateway = addr("10.2.0.1")
	s.pic.primary = "eth0"
	return s
}

// tunnel adds a tunnel that is up and has an address.
func (s *scene) tunnel(name, kind string) {
	s.link(name, kind).Type = 65534
	s.address(name, "10.8.0.2/24")
}

// line is what the cases look at.
type line struct {
	Name    string
	Kind    vnet.UplinkKind
	Gateway string
	Metric  uint32
	Reason  string
}

func linesOf(u vnet.Uplinks) []line {
	var out []line
	for _, l := range u.List {
		gateway := "none"
		switch {
		case l.Gateway4.IsValid():
			gateway = l.Gateway4.String()
		case l.Default4:
			gateway = "link"
		}
		out = append(out, line{l.Interface, l.Kind, gateway, l.Metric4, l.Reason})
	}
	return out
}
