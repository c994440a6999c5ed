package ndp

import "golang.org/x/sys/unix"

// Where things are in an Ethernet frame that holds IPv6 without extension headers.
const (
	offsetEtherType  = 12
	offsetNextHeader = 20
	offsetType       = 54
)

// What may stand between the IPv6 header and ICMPv6; behind them is looked in Go. Fragments can't be
// neighbour discovery (RFC 6980).
var extensions = []uint32{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS}

// Ancillary data of the kernel's filters (linux/filter.h), below SKF_AD_OFF.
const (
	ancillary               = 0xfffff000
	ancillaryPktType        = ancillary + 4
	ancillaryVLAN           = ancillary + 44
	ancillaryVLANSet        = ancillary + 48
	load32                  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	load16                  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	load8                   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	and                     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	equal                   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	greater                 = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	done                    = unix.BPF_RET | unix.BPF_K
	vlanID                  = 0x0fff
	wholeFrame       uint32 = 1 << 18
)

// jump is an instruction that is to go on at a label when it holds or doesn't; the empty label is the
// next instruction.
type jump struct {
	filter    unix.SockFilter
	then, not string
}

// filterFor accepts received frames with ICMPv6 messages of the types, or with extension headers that
// might hide one. Frames of a VLAN arrive at the interface below it, too, their tag beside them: they
// are not that interface's, but for VLAN 0, which is a priority alone (IEEE 802.1Q 9.6).
//
// With others, frames to other stations are accepted as well: a bridge's port sees them, and that is
// where they pass. Otherwise whoever listens for the interface must not: the kernel doesn't, either.
func filterFor(others bool, types ...uint32) []unix.SockFilter {
	last := uint32(unix.PACKET_MULTICAST)
	if others {
		last = unix.PACKET_OTHERHOST
	}
	steps := []jump{
		{filter: unix.SockFilter{Code: load32, K: ancillaryPktType}},
		{filter: unix.SockFilter{Code: greater, K: last}, then: "drop"},
		{filter: unix.SockFilter{Code: load32, K: ancillaryVLANSet}},
		{filter: unix.SockFilter{Code: equal, K: 0}, then: "untagged"},
		{filter: unix.SockFilter{Code: load32, K: ancillaryVLAN}},
		{filter: unix.SockFilter{Code: and, K: vlanID}},
		{filter: unix.SockFilter{Code: equal, K: 0}, not: "drop"},
	}
	labels := map[string]int{"untagged": len(steps)}
	steps = append(steps,
		jump{filter: unix.SockFilter{Code: load16, K: offsetEtherType}},
		jump{filter: unix.SockFilter{Code: equal, K: unix.ETH_P_IPV6}, not: "drop"},
		jump{filter: unix.SockFilter{Code: load8, K: offsetNextHeader}})
	for _, e := range extensions {
		steps = append(steps, jump{filter: unix.SockFilter{Code: equal, K: e}, then: "accept"})
	}
	steps = append(steps,
		jump{filter: unix.SockFilter{Code: equal, K: unix.IPPROTO_ICMPV6}, not: "drop"},
		jump{filter: unix.SockFilter{Code: load8, K: offsetType}})
	for _, t := range types {
		steps = append(steps, jump{filter: unix.SockFilter{Code: equal, K: t}, then: "accept"})
	}
	labels["drop"] = len(steps)
	steps = append(steps, jump{filter: unix.SockFilter{Code: done, K: 0}})
	labels["accept"] = len(steps)
	steps = append(steps, jump{filter: unix.SockFilter{Code: done, K: wholeFrame}})
	return assemble(steps, labels)
}

func assemble(steps []jump, labels map[string]int) []unix.SockFilter {
	program := make([]unix.SockFilter, len(steps))
	for i, s := range steps {
		program[i] = s.filter
		if s.then != "" {
			program[i].Jt = uint8(labels[s.then] - i - 1)
		}
		if s.not != "" {
			program[i].Jf = uint8(labels[s.not] - i - 1)
		}
	}
	return program
}
