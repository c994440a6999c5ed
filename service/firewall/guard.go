package firewall

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// setGuard puts a guard in the place of what there is of the network's, also of another kind. The one before it
// stands until then: nothing passes in between that neither would let pass.
func (f *Firewall) setGuard(spec plan.GuardSpec) error {
	where := fmt.Sprintf("IPv6-only link of %q", spec.Network)
	if spec.Bridge != "" {
		where = fmt.Sprintf("bridge of %q", spec.Network)
	}
	hosts, err := checkGuard(spec)
	if err != nil {
		return fmt.Errorf("cannot guard %s: %w", where, err)
	}
	for _, name := range endsOf(spec) {
		if f.netlink.index(name) == 0 {
			return fmt.Errorf("cannot guard %s: there is no interface %q", where, name)
		}
	}
	put := func(answer bool) error {
		return f.change([]ownTable{guardTable}, func(b *batch, there []found) error {
			return there[0].putGuard(b, spec, guardChains(spec, hosts, answer))
		})
	}
	answer := len(spec.Retired) > 0
	err = put(answer)
	if answer && lacksExpression(err) {
		// Family netdev has reject since Linux 5.9.
		f.log.Debug("the kernel answers nothing at ingress: packets with a retired source are only dropped", "network", spec.Network, "error", err)
		err = put(false)
	}
	if err != nil {
		return fmt.Errorf("cannot guard %s: %w", where, err)
	}
	return nil
}

// endsOf lists the interfaces that the guard stands at.
func endsOf(spec plan.GuardSpec) []string {
	if spec.Bridge != "" {
		return []string{spec.Bridge}
	}
	return []string{spec.Inner, spec.Outer}
}

// putGuard adds what makes the guard of chains, whatever is there of the network's.
func (f found) putGuard(b *batch, spec plan.GuardSpec, chains []ownChain) error {
	var outdated []string
	for _, name := range guardNames(spec.Network) {
		if !slices.ContainsFunc(chains, func(c ownChain) bool { return c.name == name }) {
			outdated = append(outdated, name)
		}
	}
	digest := spec.Digest()
	return f.put(b, chains, outdated, func(c ownChain, rule int) mark {
		return markOf(digest, edition(), c.at.device, rule, len(c.rules))
	})
}

// guardNames are the names that chains of the network's guard may have.
func guardNames(network string) []string {
	return []string{network + outerSuffix, network + innerSuffix, network + bridgeSuffix, network + refusedSuffix}
}

// checkGuard returns the parsed MAC addresses of the host.
func checkGuard(spec plan.GuardSpec) ([]net.HardwareAddr, error) {
	if err := vnet.ValidateNetworkName(spec.Network); err != nil {
		return nil, err
	}
	switch {
	case spec.Bridge != "" && (spec.Inner != "" || spec.Outer != "" || len(spec.Hosts) > 0):
		return nil, errors.New("what is for an IPv6-only link doesn't go with a bridge")
	case spec.Bridge == "" && spec.Inner == spec.Outer:
		return nil, fmt.Errorf("both ends are %q", spec.Inner)
	}
	for _, p := range spec.Retired {
		if !p.IsValid() || !p.Addr().Is6() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is not an IPv6 prefix", p)
		}
	}
	var hosts []net.HardwareAddr
	for _, text := range spec.Hosts {
		host, err := net.ParseMAC(text)
		if err != nil || len(host) != 6 {
			return nil, fmt.Errorf("%q is not an Ethernet address", text)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// deleteGuard removes the network's guard, and the table with the last.
func (f *Firewall) deleteGuard(network string) error {
	if err := f.removeChains(guardTable, guardNames(network)); err != nil {
		return fmt.Errorf("cannot delete the guard of %q: %w", network, err)
	}
	return nil
}

// removeGuards removes the table with all that is in it.
func (f *Firewall) removeGuards() error {
	if err := f.removeTable(guardTable); err != nil {
		return fmt.Errorf("cannot remove the guards: %w", err)
	}
	return nil
}

// networkOf returns the network that a chain of the guards' is about.
func networkOf(chain string) (network string, ok bool) {
	for _, suffix := range []string{innerSuffix, outerSuffix, bridgeSuffix, refusedSuffix} {
		if network, ok := strings.CutSuffix(chain, suffix); ok && network != "" {
			return network, true
		}
	}
	return "", false
}

// index returns an interface's index, 0 if there is none of the name.
func (c *conn) index(name string) int {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0
	}
	// A netlink socket takes it like any other, for its own namespace.
	if err := unix.IoctlIfreq(c.sockets[unix.NETLINK_NETFILTER].Socket.GetFd(), unix.SIOCGIFINDEX, request); err != nil {
		return 0
	}
	return int(request.Uint32())
}
