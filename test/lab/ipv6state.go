package lab

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// IPv6State is what a kernel holds for one interface. Lifetimes are those that remained when the kernel said so: at At, or, in a
// Watch, when it last spoke of the address or route. It doesn't when an advertisement merely prolongs a route, nor of an address that
// is being checked, unless it is optimistic.
type IPv6State struct {
	At        time.Time // with a reading of CLOCK_MONOTONIC
	Addresses []Address6
	Routes    []Route6
	Neighbors map[netip.Addr]net.HardwareAddr
	// Retrans is the time between two solicitations, and of DAD; MTU and HopLimit are those of IPv6, as advertised.
	Retrans       time.Duration
	MTU, HopLimit int
}

// Address6 is an address of an interface.
type Address6 struct {
	Prefix netip.Prefix // the address itself, with the length of its prefix
	// Tentative addresses are still being checked, and unusable unless Optimistic (RFC 4429); Failed ones are another's.
	Tentative, Optimistic, Failed bool
	Deprecated, Temporary         bool
	Valid, Preferred              time.Duration // Forever for those that don't expire
}

// Usable reports whether new connections may use the address: neither tentative nor failed nor deprecated.
func (a Address6) Usable() bool { return (!a.Tentative || a.Optimistic) && !a.Failed && !a.Deprecated }

// Route6 is a route by the interface. Default routes have the prefix ::/0.
type Route6 struct {
	Prefix     netip.Prefix
	Via        netip.Addr    // invalid if on-link
	Lifetime   time.Duration // Forever if it doesn't expire
	Protocol   int           // 9: by an advertisement (RTPROT_RA); 2: the kernel's own
	Metric     int
	Preference int // -1 low, 0, 1 high
}

// Usable lists the usable addresses within the prefix.
func (s IPv6State) Usable(within netip.Prefix) (out []netip.Addr) {
	for _, a := range s.Addresses {
		if a.Usable() && within.Contains(a.Prefix.Addr()) {
			out = append(out, a.Prefix.Addr())
		}
	}
	return out
}

// Global lists the addresses within global or unique local prefixes, usable or not.
func (s IPv6State) Global() []Address6 {
	return slices.DeleteFunc(slices.Clone(s.Addresses), func(a Address6) bool { return !a.Prefix.Addr().IsGlobalUnicast() })
}

// Routers lists the default routes.
func (s IPv6State) Routers() []Route6 {
	return slices.DeleteFunc(slices.Clone(s.Routes), func(r Route6) bool { return r.Prefix.Bits() != 0 })
}

// HasRouter reports whether there is a default route by the router; the zero Addr stands for any.
func (s IPv6State) HasRouter(router netip.Addr) bool {
	return slices.ContainsFunc(s.Routers(), func(r Route6) bool { return !router.IsValid() || r.Via == router })
}

func (s IPv6State) clone() IPv6State {
	s.Addresses, s.Routes, s.Neighbors = slices.Clone(s.Addresses), slices.Clone(s.Routes), maps.Clone(s.Neighbors)
	return s
}

// apply takes in one message of rtnetlink (rtnetlink(7)) and reports whether it was about the interface.
func (s *IPv6State) apply(kind uint16, b []byte, ifindex int) bool {
	if len(b) < 8 || b[0] != unix.AF_INET6 {
		return false
	}
	switch kind {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return s.applyAddress(kind == unix.RTM_NEWADDR, b, ifindex)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return s.applyRoute(kind == unix.RTM_NEWROUTE, b, ifindex)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return s.applyNeighbor(kind == unix.RTM_NEWNEIGH, b, ifindex)
	case unix.RTM_NEWLINK:
		return s.applyLink(b, ifindex)
	}
	return false
}

func (s *IPv6State) applyAddress(present bool, b []byte, ifindex int) bool {
	if int(binary.NativeEndian.Uint32(b[4:])) != ifindex {
		return false
	}
	a := Address6{Valid: Forever, Preferred: Forever}
	flags := uint32(b[2])
	for kind, v := range rtAttributes(b[8:]) {
		switch {
		case kind == unix.IFA_ADDRESS && len(v) == 16:
			a.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte(v)), int(b[1]))
		case kind == unix.IFA_FLAGS && len(v) == 4:
			flags = binary.NativeEndian.Uint32(v)
		case kind == unix.IFA_CACHEINFO && len(v) >= 8:
			a.Preferred, a.Valid = kernelSeconds(v), kernelSeconds(v[4:])
		}
	}
	for bit, field := range map[uint32]*bool{unix.IFA_F_TENTATIVE: &a.Tentative, unix.IFA_F_OPTIMISTIC: &a.Optimistic, unix.IFA_F_DADFAILED: &a.Failed,
		unix.IFA_F_DEPRECATED: &a.Deprecated, unix.IFA_F_TEMPORARY: &a.Temporary} {
		*field = flags&bit != 0
	}
	same := func(other Address6) bool { return other.Prefix.Addr() == a.Prefix.Addr() }
	s.Addresses = replace(s.Addresses, same, a, present)
	return true
}

func kernelSeconds(b []byte) time.Duration {
	if n := binary.NativeEndian.Uint32(b); n != math.MaxUint32 {
		return time.Duration(n) * time.Second
	}
	return Forever
}

// userHz is the unit of times in routes: ticks a second, USER_HZ.
const userHz = 100

func (s *IPv6State) applyRoute(present bool, b []byte, ifindex int) bool {
	if len(b) < 12 || b[7] != unix.RTN_UNICAST || binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	r := Route6{Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), int(b[1])), Protocol: int(b[5]), Lifetime: Forever}
	dst, out, table := [16]byte{}, 0, uint32(b[4])
	hops := []nextHop{}
	for kind, v := range rtAttributes(b[12:]) {
		switch {
		case kind == unix.RTA_DST:
			copy(dst[:], v)
		case kind == unix.RTA_GATEWAY && len(v) == 16:
			r.Via = netip.AddrFrom16([16]byte(v))
		case kind == unix.RTA_OIF && len(v) == 4:
			out = int(binary.NativeEndian.Uint32(v))
		case kind == unix.RTA_PRIORITY && len(v) == 4:
			r.Metric = int(binary.NativeEndian.Uint32(v))
		case kind == unix.RTA_TABLE && len(v) == 4:
			table = binary.NativeEndian.Uint32(v)
		case kind == unix.RTA_PREF && len(v) == 1:
			r.Preference = readPreference(v[0] << 3)
		case kind == unix.RTA_CACHEINFO && len(v) >= 12:
			if ticks := int32(binary.NativeEndian.Uint32(v[8:])); ticks != 0 {
				r.Lifetime = time.Duration(ticks) * time.Second / userHz
			}
		case kind == unix.RTA_MULTIPATH:
			hops = nextHops(v)
		}
	}
	if table != unix.RT_TABLE_MAIN {
		return false
	}
	r.Prefix = netip.PrefixFrom(netip.AddrFrom16(dst), int(b[1]))
	if len(hops) == 0 {
		hops = []nextHop{{out, r.Via}}
	}
	changed := false
	for _, hop := range hops {
		if hop.out != ifindex {
			continue
		}
		r.Via = hop.via
		same := func(other Route6) bool {
			return other.Prefix == r.Prefix && other.Via == r.Via && other.Metric == r.Metric && other.Protocol == r.Protocol
		}
		s.Routes, changed = replace(s.Routes, same, r, present), true
	}
	return changed
}

type nextHop struct {
	out int
	via netip.Addr
}

// nextHops reads the parts of a route over several: struct rtnexthop, each with attributes.
func nextHops(b []byte) (hops []nextHop) {
	for len(b) >= 8 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 8 || size > len(b) {
			return hops
		}
		h := nextHop{out: int(binary.NativeEndian.Uint32(b[4:]))}
		for kind, v := range rtAttributes(b[8:size]) {
			if kind == unix.RTA_GATEWAY && len(v) == 16 {
				h.via = netip.AddrFrom16([16]byte(v))
			}
		}
		hops, b = append(hops, h), b[min((size+3)&^3, len(b)):]
	}
	return hops
}

func (s *IPv6State) applyNeighbor(present bool, b []byte, ifindex int) bool {
	if len(b) < 12 || int(binary.NativeEndian.Uint32(b[4:])) != ifindex || binary.NativeEndian.Uint16(b[8:])&unix.NUD_NOARP != 0 {
		return false
	}
	var addr netip.Addr
	var lladdr net.HardwareAddr
	for kind, v := range rtAttributes(b[12:]) {
		switch {
		case kind == unix.NDA_DST && len(v) == 16:
			addr = netip.AddrFrom16([16]byte(v))
		case kind == unix.NDA_LLADDR:
			lladdr = slices.Clone(v)
		}
	}
	if before, known := s.Neighbors[addr]; known == (present && lladdr != nil) && slices.Equal(before, lladdr) {
		return false // its state changed, which is nothing to us
	}
	if delete(s.Neighbors, addr); present && lladdr != nil {
		s.Neighbors[addr] = lladdr
	}
	return true
}

// applyLink reads IFLA_PROTINFO, of which the kernel sends the settings as an array (DEVCONF_HOPLIMIT 1, DEVCONF_MTU6 2) and
// struct ifla_cacheinfo.
func (s *IPv6State) applyLink(b []byte, ifindex int) bool {
	if len(b) < 16 || int(binary.NativeEndian.Uint32(b[4:])) != ifindex {
		return false
	}
	found := false
	for kind, protinfo := range rtAttributes(b[16:]) {
		if kind != unix.IFLA_PROTINFO {
			continue
		}
		for kind, v := range rtAttributes(protinfo) {
			switch {
			case kind == unix.IFLA_INET6_CONF && len(v) >= 12:
				s.HopLimit, s.MTU = int(binary.NativeEndian.Uint32(v[4:])), int(binary.NativeEndian.Uint32(v[8:]))
				found = true
			case kind == unix.IFLA_INET6_CACHEINFO && len(v) >= 16:
				s.Retrans = time.Duration(binary.NativeEndian.Uint32(v[12:])) * time.Millisecond
				found = true
			}
		}
	}
	return found
}

// replace puts the item in the place of the same, or takes that away.
func replace[T any](list []T, same func(T) bool, item T, present bool) []T {
	i := slices.IndexFunc(list, same)
	switch {
	case present && i >= 0:
		list[i] = item
	case present:
		list = append(list, item)
	case i >= 0:
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// rtAttributes walks attributes (struct rtattr), without the flags of their types.
func rtAttributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			size := int(binary.NativeEndian.Uint16(b))
			if size < 4 || size > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// IPv6 reads what the kernel holds for an interface.
func (h *Host) IPv6(ifname string) (IPv6State, error) {
	w, err := h.openWatch(ifname, 0)
	if err != nil {
		return IPv6State{}, fmt.Errorf("cannot read IPv6 of %q on %q: %w", ifname, h.Name, err)
	}
	defer w.file.Close()
	return w.history[0], nil
}
