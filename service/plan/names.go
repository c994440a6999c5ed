package plan

// What is ours in the kernel is recognised by these; a new process finds it without any
// memory of its own. These must never change: an older daemon's objects would be orphaned.
const (
	// AliasPrefix and the network's name make the alias of a network's bridge.
	AliasPrefix = "gangway:"
	// Protocol marks our routes and rules (rtnetlink's rtm_protocol); unassigned in
	// iproute2's rt_protos.
	Protocol = 147
	// TableFollow, TableBypass and TableBlock hold the default route of all networks
	// that are bound automatically, by their vpn setting; TableNone has no way out.
	// A network that is pinned to an interface uses TablePinned plus its index.
	TableFollow = 26450
	TableBypass = 26451
	TableBlock  = 26452
	TableNone   = 26453
	TablePinned = 2645000000
	// TableFound and an uplink's index number the table of the prefix that guests share with that uplink's link.
	TableFound = 2645100000
	// TableBarred is added to the number of a table that several networks share, for those of them that
	// some uplink is barred to (routed ones, from what is never shared): their way out may be another.
	TableBarred = 10
	// PriorityMain and PriorityOwn are the priorities of each bridge's two rules: main
	// without its default route, then a table of ours. Before main (32766) and behind what
	// VPNs use to catch traffic (Tailscale 5210 to 5270), but for networks that keep out of VPNs: those' are put before
	// anybody's.
	// PriorityKnown and PriorityFound are those of an uplink's two rules: in main, guests that are known; then, by their
	// prefix, those that are to be found.
	PriorityKnown = 21040
	PriorityFound = 21050
	// PriorityGuests and PriorityLink are those of two more before them, where the host has the guests' link by
	// two interfaces: guests of the same bridge in main, then that link in a table of ours.
	PriorityGuests = 21080
	PriorityLink   = 21090
	PriorityMain   = 21100
	PriorityOwn    = 21200
)

// The link group (IFLA_GROUP) of a bridge of ours tells the packet filter that it is ours,
// whichever its name and however many there are: GroupBridge under GroupMask, with
// GroupServices when its guests reach only DHCP, DNS and ping on the host.
const (
	GroupBridge   = 0x67770000
	GroupMask     = 0xffff0000
	GroupServices = 0x00000001
)

// The sets, all of type hash:net,iface. Their contents and the bridges' groups are all that
// differs between machines and moments: the rules that refer to them are constant.
const (
	// SetLocal has each subnet with its bridge.
	SetLocal = "gangway-local"
	// SetOut has each subnet with every interface that its guests may leave by.
	SetOut = "gangway-out"
	// SetNAT has those of SetOut that are translated.
	SetNAT = "gangway-nat"
	// SetInbound has each subnet whose guests may be reached from outside, with its bridge.
	SetInbound = "gangway-inbound"
)

// The sets of IPv6, of the same type: what they hold is a prefix, not a network's subnet, since guests
// share the uplink's.
const (
	// SetLocal6 has each prefix that guests may have addresses of, with their bridge.
	SetLocal6 = "gangway6-local"
	// SetOut6 has each such prefix with the interface that packets from it may leave by.
	SetOut6 = "gangway6-out"
	// SetNAT6 has those of SetOut6 that are translated.
	SetNAT6 = "gangway6-nat"
	// SetInbound6 has each prefix whose guests may be reached by new connections from outside, with
	// their bridge.
	SetInbound6 = "gangway6-inbound"
	// SetBorrowed6 has ::/1 and 8000::/1 with each interface that forwards for guests alone: others must
	// not use the host as their router because of us.
	SetBorrowed6 = "gangway6-borrowed"
)

// Sets6 lists the names of IPv6 sets, in the order in which entries are added, as Sets does.
func Sets6() []string {
	return []string{SetBorrowed6, SetLocal6, SetNAT6, SetInbound6, SetOut6}
}

// Sets lists the names of all sets, in the order in which entries are added: a way out is
// opened last, when translation is in place. Entries are deleted in the reverse order.
func Sets() []string { return []string{SetLocal, SetNAT, SetInbound, SetOut} }

// An IPv6-only link's ends are named PairPrefix, the network's hash, and n in the network's
// bridge, u in the uplink's. They are known by their aliases: InnerAliasPrefix or
// OuterAliasPrefix, and the network's name.
const (
	PairPrefix       = "gw6"
	InnerAliasPrefix = "gangway6:"
	OuterAliasPrefix = "gangway6-uplink:"
	// GroupPair is the link group of both ends, under GroupMask: one that has it and a name of
	// ours but no alias was left half made.
	GroupPair = 0x67780000
)

// GuardTable is the nftables table, of family netdev, of what is below IP.
const GuardTable = "gangway"

// ForwardTable is the nftables table, of family inet, of what iptables has no match for.
const ForwardTable = "gangway"
