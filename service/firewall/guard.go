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

// guardTableComment marks the table of the guards as ours, in the form in which nft keeps comments
// (libnftnl, libnftnl/udata.h: type, length, value). It must never change.
var guardTableComment = comment("guards of gangwayd's IPv6-only links")

// Types of libnftnl's user data, and one of our own, which nft passes over.
const (
	userdataComment = 0 // for tables and rules alike
	userdataGuard   = 0x67
)

func userdata(kind byte, value string) []byte {
	return append([]byte{kind, byte(len(value) + 1)}, value+"\x00"...)
}

func comment(value string) []byte { return userdata(userdataComment, value) }

// errNoNftables says what the kernel lacks.
var errNoNftables = errors.New("the kernel has no nf_tables for family netdev (CONFIG_NF_TABLES_NETDEV)")

// setGuard puts a guard in the place of what there is of the network's. The one before it stands until
// then: nothing passes in between that neither would let pass.
func (f *Firewall) setGuard(spec plan.GuardSpec) error {
	hosts, err := checkGuard(spec)
	if err != nil {
		return fmt.Errorf("cannot guard IPv6-only link of %q: %w", spec.Network, err)
	}
	for _, name := range []string{spec.Inner, spec.Outer} {
		if f.netlink.index(name) == 0 {
			return fmt.Errorf("cannot guard IPv6-only link of %q: there is no interface %q", spec.Network, name)
		}
	}
	put := func(answer bool) error {
		return f.changeGuards(func(b *batch, g guards) error {
			return g.put(b, guardChains(spec, hosts, answer), spec.Digest())
		})
	}
	answer := len(spec.Retired) > 0
	err = put(answer)
	if answer && lacksExpression(err) {
		// Family netdev has reject since Linux 5.9.
		f.log.Debug("the kernel answers nothing at ingress: packets with a retired source are only dropped", "network", spec.Network, "error", err)
		err = put(false)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: %w", errNoNftables, err)
	}
	if err != nil {
		return fmt.Errorf("cannot guard IPv6-only link of %q: %w", spec.Network, err)
	}
	return nil
}

// checkGuard returns the parsed MAC addresses of the host.
func checkGuard(spec plan.GuardSpec) ([]net.HardwareAddr, error) {
	if err := vnet.ValidateNetworkName(spec.Network); err != nil {
		return nil, err
	}
	if spec.Inner == spec.Outer {
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

// lacksExpression tells whether the kernel may have refused a rule because it has no such expression, or
// not in this family.
func lacksExpression(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// deleteGuard removes the network's guard, and the table with the last.
func (f *Firewall) deleteGuard(network string) error {
	err := f.changeGuards(func(b *batch, g guards) error {
		if g.ours {
			g.take(b, network)
		}
		return nil
	})
	if err == nil {
		err = f.changeGuards(func(b *batch, g guards) error {
			if g.ours && len(g.chains) == 0 {
				b.add(unix.NFPROTO_NETDEV, unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, text(unix.NFTA_TABLE_NAME, plan.GuardTable))
			}
			return nil
		})
		if errors.Is(err, unix.EBUSY) {
			err = nil // somebody has put something into it
		}
	}
	if err != nil && !errors.Is(err, errNoNftables) {
		return fmt.Errorf("cannot delete the guard of %q: %w", network, err)
	}
	return nil
}

// removeGuards removes the table with all that is in it.
func (f *Firewall) removeGuards() error {
	err := f.changeGuards(func(b *batch, g guards) error {
		if g.ours {
			b.add(unix.NFPROTO_NETDEV, unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, plan.GuardTable))
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNoNftables) {
		return fmt.Errorf("cannot remove the guards: %w", err)
	}
	return nil
}

// changeGuards carries out what change puts into a transaction after a look at what there is; nothing
// if it puts nothing there.
func (f *Firewall) changeGuards(change func(*batch, guards) error) error {
	for range deleteAttempts {
		generation, err := f.generation()
		if err != nil {
			return err
		}
		if generation == 0 {
			return errNoNftables
		}
		g, err := f.netlink.guards()
		if err != nil {
			return err
		}
		b := f.netlink.newBatch(generation)
		if err := change(b, g); err != nil {
			return err
		}
		if b.last == 0 {
			return nil
		}
		f.watched.valid = false
		if err := b.commit(); err == nil {
			// Chains of iptables' that were looked at before this are as they were.
			if f.seen.generation == generation {
				f.seen.generation = nextGeneration(generation)
			}
			return nil
		} else if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return errors.New("another program changes the ruleset at the same time")
}

// nextGeneration is the number that the kernel counts on to: 0 is left out (Linux
// net/netfilter/nf_tables_api.c, nf_tables_commit).
func nextGeneration(g uint32) uint32 { return max(g+1, 1) }

// put adds what makes the guard of chains, whatever is there of it.
func (g guards) put(b *batch, chains []guardChain, digest string) error {
	if g.table && !g.ours {
		return fmt.Errorf("table %q of family netdev is somebody else's", plan.GuardTable)
	}
	const netdev = unix.NFPROTO_NETDEV
	table := text(unix.NFTA_CHAIN_TABLE, plan.GuardTable) // the attribute is the same for chains and rules
	switch {
	case !g.table:
		b.add(netdev, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, table, attribute{nftaTableUserdata, guardTableComment})
	case g.dormant:
		b.add(netdev, unix.NFT_MSG_NEWTABLE, 0, table, number(unix.NFTA_TABLE_FLAGS, 0))
	}
	// A chain that stands where it should keeps standing: its rules change at once with the
	// transaction. Rules go before the chains that they lead to.
	for _, c := range chains {
		if _, ok := g.chains[c.name]; ok {
			b.add(netdev, unix.NFT_MSG_DELRULE, 0, table, text(unix.NFTA_RULE_CHAIN, c.name))
		}
	}
	for _, c := range chains {
		there, ok := g.chains[c.name]
		if ok && !there.standsAt(c.device) {
			b.add(netdev, unix.NFT_MSG_DELCHAIN, 0, table, text(unix.NFTA_CHAIN_NAME, c.name))
			ok = false
		}
		if !ok {
			b.add(netdev, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append([]attribute{table, text(unix.NFTA_CHAIN_NAME, c.name)}, hookOf(c.device)...)...)
		}
	}
	for _, c := range slices.Backward(chains) {
		for i, r := range c.rules {
			note := append(comment(r.name), userdata(userdataGuard, markOf(digest, c.device, i, len(c.rules)).String())...)
			b.add(netdev, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, table, text(unix.NFTA_RULE_CHAIN, c.name),
				nested(unix.NFTA_RULE_EXPRESSIONS, r.steps...), attribute{unix.NFTA_RULE_USERDATA, note})
		}
	}
	return nil
}

// hookOf returns the attributes that bind a chain to a device's ingress; none for "".
func hookOf(device string) []attribute {
	if device == "" {
		return nil
	}
	return []attribute{
		nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, unix.NF_NETDEV_INGRESS), number(unix.NFTA_HOOK_PRIORITY, 0),
			text(unix.NFTA_HOOK_DEV, device)),
		number(unix.NFTA_CHAIN_POLICY, nfDrop),
		text(unix.NFTA_CHAIN_TYPE, "filter"),
	}
}

// take adds what removes the network's chains.
func (g guards) take(b *batch, network string) {
	var names []string
	for _, suffix := range []string{outerSuffix, innerSuffix, refusedSuffix} {
		if _, ok := g.chains[network+suffix]; ok {
			names = append(names, network+suffix)
		}
	}
	table := text(unix.NFTA_CHAIN_TABLE, plan.GuardTable)
	for _, name := range names {
		b.add(unix.NFPROTO_NETDEV, unix.NFT_MSG_DELRULE, 0, table, text(unix.NFTA_RULE_CHAIN, name))
	}
	for _, name := range names {
		b.add(unix.NFPROTO_NETDEV, unix.NFT_MSG_DELCHAIN, 0, table, text(unix.NFTA_CHAIN_NAME, name))
	}
}

// networkOf returns the network that a chain of the guards' is about.
func networkOf(chain string) (network string, ok bool) {
	for _, suffix := range []string{innerSuffix, outerSuffix, refusedSuffix} {
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
