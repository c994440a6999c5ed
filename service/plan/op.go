package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"gangway/service/vnet"
)

// Room names the package that carries an operation out.
type Room int

// The rooms.
const (
	LinkRoom Room = iota
	FirewallRoom
	ServerRoom
	StoreRoom
	NDPRoom
	GateRoom
)

// Op is one change of the machine. Ops are values: String is what the log, --dry-run
// and the tests' goldens show. Every Op is idempotent: applied to a machine that is
// already so, it succeeds and changes nothing; deleting what is absent is success.
type Op interface {
	Room() Room
	String() string
}

// Outcome is what came of one Op.
type Outcome struct {
	Err error
	// Count is how many things it was, where that is interesting (FlushFlows: flows deleted).
	Count int
}

// The operations of the link room.
type (
	// CreateBridge makes a bridge that is down: no STP, no forward delay, no multicast
	// snooping. A link of that name that isn't ours (its alias differs) is an error.
	CreateBridge struct {
		Name, MAC, Alias string
		MTU              int
		Group            uint32
	}
	// SetGroup sets a link's group (IFLA_GROUP).
	SetGroup struct {
		Name  string
		Group uint32
	}
	// DeleteBridge deletes a bridge of ours; it does nothing if the alias isn't Alias.
	DeleteBridge struct{ Name, Alias string }
	// SetLinkUp brings a link up.
	SetLinkUp struct{ Name string }
	// SetMTU sets a link's MTU.
	SetMTU struct {
		Name string
		MTU  int
	}
	// SetMAC sets a link's MAC address.
	SetMAC struct{ Name, MAC string }
	// SetMulticastSnooping switches a bridge's multicast snooping.
	SetMulticastSnooping struct {
		Name string
		On   bool
	}
	// AddAddress adds an address to a bridge of ours, an IPv4 one with its broadcast address, an IPv6 one
	// without duplicate address detection; DeleteAddress removes it.
	AddAddress struct {
		Link   string
		Prefix netip.Prefix
	}
	DeleteAddress struct {
		Link   string
		Prefix netip.Prefix
	}
	// AddPort makes the interface a port of the bridge, isolated or not, and brings it up; the
	// interface must still have that index.
	AddPort struct {
		Bridge, Interface string
		Index             int
		Isolated          bool
	}
	// RemovePort takes the interface out of the bridge, if it is in that bridge; with Down it is
	// brought down before.
	RemovePort struct {
		Bridge, Interface string
		Down              bool
	}
	// IsolatePort sets the bridge port flag: isolated ports don't reach each other.
	IsolatePort struct {
		Interface string
		On        bool
	}
	// BouncePort takes the port's carrier away for a moment, so that the guest behind it
	// asks for its address again.
	BouncePort struct{ Interface string }
	// AddRule and DeleteRule change the policy routing rules, of the family that the rule is of.
	AddRule    struct{ Rule vnet.Rule }
	DeleteRule struct{ Rule vnet.Rule }
	// ReplaceRoute puts the route in the place of one with the same table, destination
	// and metric, atomically. LinkName is the output interface ("" for unreachable);
	// Route.Link, an index, wins when it isn't 0.
	ReplaceRoute struct {
		Route    vnet.Route
		LinkName string
	}
	DeleteRoute struct{ Route vnet.Route }
	// SetSysctl sets a sysctl of a link of ours; no need to remember what it was.
	SetSysctl struct{ Key, Value string }
	// BorrowSysctl sets a sysctl that isn't ours and remembers, on disk and before the change,
	// what it was; a second Borrow keeps the first memory.
	BorrowSysctl struct{ Key, Value string }
	// ReturnSysctl gives a borrowed sysctl its old value back and forgets it. When somebody
	// else has changed the value since (it isn't Value, which we set), it is only forgotten.
	ReturnSysctl struct{ Key, Value string }
)

// The operations of the firewall room.
type (
	// InstallChains puts all our chains and the jumps to them in place, whatever is there of
	// them, and creates the sets; RemoveFirewall removes all of that.
	InstallChains  struct{}
	RemoveFirewall struct{}
	// AddSetEntry and DeleteSetEntry change a set's members.
	AddSetEntry struct {
		Set   string
		Entry vnet.SetEntry
	}
	DeleteSetEntry struct {
		Set   string
		Entry vnet.SetEntry
	}
	// FlushFlows deletes the tracked connections of guests whose translation doesn't fit:
	// those with a source in Subnets for which Stale says so. With TranslatedOnly, flows that
	// aren't translated at all need not be looked at.
	FlushFlows struct {
		Subnets        []netip.Prefix
		TranslatedOnly bool
		Stale          func(vnet.Flow) bool
		Why            string
	}
)

// The operations of the server room (dnsmasq).
type (
	// StartServer starts a network's dnsmasq and waits until it serves; one that runs with
	// another configuration is stopped first.
	StartServer struct{ Spec ServerSpec }
	// StopServer stops it and removes its files but for the leases.
	StopServer struct{ Network string }
	// SetHosts hands it new reservations without a restart.
	SetHosts struct{ Spec ServerSpec }
	// SetUpstreams tells it where to forward to, without a restart.
	SetUpstreams struct {
		Network   string
		Upstreams []vnet.Upstream
	}
	// ForgetLeases deletes the leases of a network that was deleted.
	ForgetLeases struct{ Network string }
)

// The operations of the store room.
type (
	// RememberSubnet records which subnet an automatic network uses.
	RememberSubnet struct {
		Network string
		Subnet  netip.Prefix
	}
	// RememberPrefix records which IPv6 /64 of its own a network uses.
	RememberPrefix struct {
		Network string
		Prefix  netip.Prefix
	}
	// RememberUplinkPrefix records that uplinks have used the prefix.
	RememberUplinkPrefix struct{ Prefix netip.Prefix }
)

func (CreateBridge) Room() Room         { return LinkRoom }
func (DeleteBridge) Room() Room         { return LinkRoom }
func (SetLinkUp) Room() Room            { return LinkRoom }
func (SetMTU) Room() Room               { return LinkRoom }
func (SetMAC) Room() Room               { return LinkRoom }
func (SetGroup) Room() Room             { return LinkRoom }
func (SetMulticastSnooping) Room() Room { return LinkRoom }
func (AddAddress) Room() Room           { return LinkRoom }
func (DeleteAddress) Room() Room        { return LinkRoom }
func (AddPort) Room() Room              { return LinkRoom }
func (RemovePort) Room() Room           { return LinkRoom }
func (IsolatePort) Room() Room          { return LinkRoom }
func (BouncePort) Room() Room           { return LinkRoom }
func (AddRule) Room() Room              { return LinkRoom }
func (DeleteRule) Room() Room           { return LinkRoom }
func (ReplaceRoute) Room() Room         { return LinkRoom }
func (DeleteRoute) Room() Room          { return LinkRoom }
func (SetSysctl) Room() Room            { return LinkRoom }
func (BorrowSysctl) Room() Room         { return LinkRoom }
func (ReturnSysctl) Room() Room         { return LinkRoom }
func (InstallChains) Room() Room        { return FirewallRoom }
func (RemoveFirewall) Room() Room       { return FirewallRoom }
func (AddSetEntry) Room() Room          { return FirewallRoom }
func (DeleteSetEntry) Room() Room       { return FirewallRoom }
func (FlushFlows) Room() Room           { return FirewallRoom }
func (StartServer) Room() Room          { return ServerRoom }
func (StopServer) Room() Room           { return ServerRoom }
func (SetHosts) Room() Room             { return ServerRoom }
func (SetUpstreams) Room() Room         { return ServerRoom }
func (ForgetLeases) Room() Room         { return ServerRoom }
func (RememberSubnet) Room() Room       { return StoreRoom }
func (RememberUplinkPrefix) Room() Room { return StoreRoom }
func (RememberPrefix) Room() Room       { return StoreRoom }

func (o CreateBridge) String() string {
	return fmt.Sprintf("create bridge %s (MAC %s, MTU %d)", o.Name, o.MAC, o.MTU)
}
func (o DeleteBridge) String() string { return "delete bridge " + o.Name }
func (o SetLinkUp) String() string    { return "bring up " + o.Name }
func (o SetMTU) String() string       { return fmt.Sprintf("set MTU of %s to %d", o.Name, o.MTU) }
func (o SetMAC) String() string       { return fmt.Sprintf("set MAC of %s to %s", o.Name, o.MAC) }
func (o SetGroup) String() string     { return fmt.Sprintf("set group of %s to %#x", o.Name, o.Group) }
func (o SetMulticastSnooping) String() string {
	return fmt.Sprintf("set multicast snooping of %s to %v", o.Name, o.On)
}
func (o AddAddress) String() string { return fmt.Sprintf("add address %s to %s", o.Prefix, o.Link) }
func (o DeleteAddress) String() string {
	return fmt.Sprintf("delete address %s from %s", o.Prefix, o.Link)
}
func (o AddPort) String() string {
	text := fmt.Sprintf("add port %s to %s", o.Interface, o.Bridge)
	if o.Isolated {
		text += ", isolated"
	}
	return text
}
func (o RemovePort) String() string {
	text := fmt.Sprintf("remove port %s from %s", o.Interface, o.Bridge)
	if o.Down {
		text += " and leave it down"
	}
	return text
}
func (o IsolatePort) String() string {
	return fmt.Sprintf("set isolation of port %s to %v", o.Interface, o.On)
}
func (o BouncePort) String() string   { return "bounce port " + o.Interface }
func (o AddRule) String() string      { return "add rule " + ruleText(o.Rule) }
func (o DeleteRule) String() string   { return "delete rule " + ruleText(o.Rule) }
func (o ReplaceRoute) String() string { return "set route " + routeText(o.Route, o.LinkName) }
func (o DeleteRoute) String() string  { return "delete route " + routeText(o.Route, "") }
func (o SetSysctl) String() string    { return fmt.Sprintf("set sysctl %s = %s", o.Key, o.Value) }
func (o BorrowSysctl) String() string { return fmt.Sprintf("borrow sysctl %s = %s", o.Key, o.Value) }
func (o ReturnSysctl) String() string { return "return sysctl " + o.Key }
func (InstallChains) String() string  { return "install firewall chains" }
func (RemoveFirewall) String() string { return "remove firewall chains and sets" }
func (o AddSetEntry) String() string  { return "add " + entryText(o.Entry) + " to set " + o.Set }
func (o DeleteSetEntry) String() string {
	return "delete " + entryText(o.Entry) + " from set " + o.Set
}
func (o FlushFlows) String() string {
	return fmt.Sprintf("flush stale flows of %s: %s", joined(o.Subnets), o.Why)
}
func (o StartServer) String() string { return "start DNS and DHCP of " + o.Spec.String() }
func (o StopServer) String() string  { return "stop DNS and DHCP of " + o.Network }
func (o SetHosts) String() string    { return "set reservations of " + o.Spec.Network }
func (o SetUpstreams) String() string {
	parts := make([]string, 0, len(o.Upstreams))
	for _, u := range o.Upstreams {
		text := u.Address.String()
		if u.Interface != "" {
			text += "@" + u.Interface
		}
		if len(u.Domains) > 0 {
			text += " for " + strings.Join(u.Domains, ",")
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	return fmt.Sprintf("set DNS upstreams of %s to %s", o.Network, strings.Join(parts, "; "))
}
func (o ForgetLeases) String() string { return "forget leases of " + o.Network }
func (o RememberSubnet) String() string {
	return fmt.Sprintf("remember subnet %s of %s", o.Subnet, o.Network)
}
func (o RememberPrefix) String() string {
	return fmt.Sprintf("remember prefix %s of %s", o.Prefix, o.Network)
}
func (o RememberUplinkPrefix) String() string {
	return fmt.Sprintf("remember uplink prefix %s", o.Prefix)
}

func ruleText(r vnet.Rule) string {
	text := fmt.Sprintf("%d: iif %s lookup %d", r.Priority, r.IIF, r.Table)
	if r.IPv6 {
		text = "IPv6 " + text
	}
	if r.SuppressPrefixLength >= 0 {
		text += fmt.Sprintf(" suppress_prefixlength %d", r.SuppressPrefixLength)
	}
	return text
}

func routeText(r vnet.Route, link string) string {
	text := r.Dst.String()
	if r.Type == vnet.RouteUnreachable {
		text = "unreachable " + text
	}
	if r.Gateway.IsValid() {
		text += " via " + r.Gateway.String()
	}
	if link != "" {
		text += " dev " + link
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	return text + fmt.Sprintf(" in table %d", r.Table)
}

func entryText(e vnet.SetEntry) string { return e.Prefix.String() + "," + e.Interface }

func joined(prefixes []netip.Prefix) string {
	parts := make([]string, len(prefixes))
	for i, p := range prefixes {
		parts[i] = p.String()
	}
	return strings.Join(parts, ", ")
}
