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

// ours returns our bridges as they are, by name of the network. Of two, which a process left
// that was killed while it renamed a bridge, it is the one that has the wanted name.
func (b *builder) ours() map[string]vnet.Link {
	if b.own == nil {
		return b.findOurs()
	}
	return b.own
}

func (b *builder) findOurs() map[string]vnet.Link {
	wanted := map[string]string{}
	for i := range b.decisions {
		wanted[b.decisions[i].Name] = b.decisions[i].Bridge
	}
	links := map[string]vnet.Link{}
	for _, l := range b.have.Kernel.Links {
		if network, ok := OwnerOf(l); ok {
			if other, two := links[network]; !two || other.Name != wanted[network] {
				links[network] = l
			}
		}
	}
	return links
}

// halfMade tells whether the link is a bridge of ours without its alias, which it is given
// last: a process was killed in the middle of CreateBridge.
func halfMade(l vnet.Link) bool {
	return l.Kind == "bridge" && l.Alias == "" && !l.Up && l.Group&GroupMask == GroupBridge
}

// OwnerOf returns the name of the network that the link is the bridge of.
func OwnerOf(l vnet.Link) (network string, ok bool) {
	if l.Kind != "bridge" || len(l.Alias) <= len(AliasPrefix) || l.Alias[:len(AliasPrefix)] != AliasPrefix {
		return "", false
	}
	return l.Alias[len(AliasPrefix):], true
}
