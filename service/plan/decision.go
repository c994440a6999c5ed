package plan

import (
	"fmt"

	"gangway/service/vnet"
)

// fail takes the network out of the plan: nothing is made for it, what exists is removed.
func (d *Decision) fail(format string, args ...any) {
	d.Active, d.State, d.Reason = false, vnet.FailedNetwork, fmt.Sprintf(format, args...)
	d.Subnet, d.Address = noPrefix, noPrefix
}

// degrade keeps it running with less than was asked for.
func (d *Decision) degrade(format string, args ...any) {
	d.State, d.Reason = vnet.Degraded, fmt.Sprintf(format, args...)
}

// active returns the decisions of the networks that are to run.
func (b *builder) active() []*Decision {
	var list []*Decision
	for i := range b.decisions {
		if b.decisions[i].Active {
			list = append(list, &b.decisions[i])
		}
	}
	return list
}

// ours returns our bridges as they are, by name of the network.
func (b *builder) ours() map[string]vnet.Link {
	links := map[string]vnet.Link{}
	for _, l := range b.have.Kernel.Links {
		if network, ok := OwnerOf(l); ok {
			links[network] = l
		}
	}
	return links
}

// OwnerOf returns the name of the network that the link is the bridge of.
func OwnerOf(l vnet.Link) (network string, ok bool) {
	if l.Kind != "bridge" || len(l.Alias) <= len(AliasPrefix) || l.Alias[:len(AliasPrefix)] != AliasPrefix {
		return "", false
	}
	return l.Alias[len(AliasPrefix):], true
}
