package policy

import "slices"

// Action is a polkit action id; each is defined in org.gangway.Gangway1.policy.
type Action string

// The actions.
const (
	ManageNetworks  Action = "org.gangway.Gangway1.manage-networks"
	ControlNetworks Action = "org.gangway.Gangway1.control-networks"
	// AttachGuest is for ports that we make.
	AttachGuest Action = "org.gangway.Gangway1.attach"
	// AttachInterface is for interfaces that exist, and so are somebody's.
	AttachInterface Action = "org.gangway.Gangway1.attach-interface"
	ShareUplink     Action = "org.gangway.Gangway1.share-uplink"
)

// table is the one place that says which member needs which action. What isn't here must be
// a method that only reads: package dbus denies a command without an entry.
var table = map[string]Action{
	"org.gangway.Gangway1.Manager.CreateNetwork": ManageNetworks,

	"org.gangway.Gangway1.Network.Start":         ControlNetworks,
	"org.gangway.Gangway1.Network.Stop":          ControlNetworks,
	"org.gangway.Gangway1.Network.Delete":        ManageNetworks,
	"org.gangway.Gangway1.Network.Update":        ManageNetworks,
	"org.gangway.Gangway1.Network.Attach":        AttachInterface,
	"org.gangway.Gangway1.Network.Detach":        AttachInterface,
	"org.gangway.Gangway1.Network.OpenTap":       AttachGuest,
	"org.gangway.Gangway1.Network.AddForward":    ManageNetworks,
	"org.gangway.Gangway1.Network.RemoveForward": ManageNetworks,

	"org.gangway.Gangway1.Uplink.SetSharing": ShareUplink,
}

// For returns the action that a method needs, false if it needs none.
func For(iface, member string) (Action, bool) {
	a, ok := table[iface+"."+member]
	return a, ok
}

// Members returns all methods that need an action, as INTERFACE.MEMBER, sorted.
func Members() []string {
	members := make([]string, 0, len(table))
	for m := range table {
		members = append(members, m)
	}
	slices.Sort(members)
	return members
}

// Actions returns all actions, sorted.
func Actions() []Action {
	var actions []Action
	for _, a := range table {
		if !slices.Contains(actions, a) {
			actions = append(actions, a)
		}
	}
	slices.Sort(actions)
	return actions
}
