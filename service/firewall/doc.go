// Package firewall is the room of the packet filter: chains of ours in iptables and ip6tables, sets
// of subnets and interfaces that they refer to, the table of tracked connections, and in nftables what iptables
// has no match for: the filter of what is routed (tunnelFilter, bridgeFilter), and the guards of IPv6-only
// links and bridges (guardChains says what they drop).
//
// The chains' rules are constant text. What differs between machines and moments is in the sets'
// members and in the link group of our bridges (BR below; plan.GroupBridge), so that a change
// of uplink is a handful of netlink messages: no program is run, no rule is replaced.
//
//	PREROUTING ─> routing ─┬─> INPUT ───> GANGWAY-INPUT ───> the host's own rules
//	                       └─> FORWARD ─> GANGWAY-FORWARD ─> the host's own rules
//	                                            │
//	                                       POSTROUTING ─> GANGWAY-POSTROUTING ─> out
//
//	filter GANGWAY-INPUT: what guests get from the host
//	  out dst,src, DNS or DHCP .................. DROP     no open resolver towards an uplink
//	  not from BR ............................... RETURN   none of our business
//	  DHCP ...................................... ACCEPT   before there is an address
//	  source isn't the bridge's subnet .......... DROP     spoofed
//	  DNS to the bridge's own address ........... ACCEPT
//	  ICMP ...................................... ACCEPT
//	  not from BR with GroupServices ............ RETURN   host-access=all
//	  RELATED,ESTABLISHED ....................... ACCEPT   answers to the host
//	  else ...................................... REJECT
//	filter GANGWAY-FORWARD: what guests get from others, and others from guests
//	  from BR, bridged .......................... ACCEPT   only where br_netfilter is there
//	  local dst,dst, RELATED,ESTABLISHED ........ ACCEPT   answers to guests
//	  from BR, source isn't the bridge's subnet . DROP     spoofed
//	  from BR, INVALID .......................... DROP     would leave untranslated
//	  local src,src and out src,dst ............. ACCEPT   the way out
//	  inbound dst,dst, not from BR .............. ACCEPT   routed networks
//	  from BR ................................... REJECT
//	  to BR ..................................... REJECT
//	nat GANGWAY-POSTROUTING
//	  nat src,dst ............................... MASQUERADE
//	mangle GANGWAY-FORWARD
//	  SYN, out src,dst or dst,src ............... TCPMSS to the path's MTU
//	mangle GANGWAY-POSTROUTING
//	  to BR, DHCP answer ........................ CHECKSUM fill
//
// "local src,src" reads: the source address and the incoming interface are a member of
// gangway-local; "out src,dst": the source address and the outgoing interface, of gangway-out.
//
// Of IPv6 the sets hold prefixes, which guests may share with the uplink's link; the bridge is then their
// router:
//
//	ip6tables filter GANGWAY-INPUT
//	  from BR, source neither link-local, nor
//	    unspecified, nor of the bridge's prefixes DROP     spoofed
//	  from BR, source is the host's address ..... DROP     spoofed, unless link-local
//	  not from BR with GroupServices ............ RETURN   host-access=all, and others
//	  RELATED,ESTABLISHED ....................... ACCEPT   answers to the host
//	  ICMPv6 .................................... ACCEPT
//	  else ...................................... REJECT
//	ip6tables filter GANGWAY-FORWARD
//	  from BR, bridged .......................... ACCEPT   \ only where br_netfilter is there
//	  from or to an IPv6-only link, bridged ..... ACCEPT   /
//	  local6 dst,dst, RELATED,ESTABLISHED ....... ACCEPT   answers to guests
//	  from BR, source isn't of its prefixes ..... DROP     spoofed
//	  from BR, source is the host's address ..... DROP     spoofed
//	  from BR, INVALID .......................... DROP     would leave untranslated
//	  from BR to BR, local6 src,src and dst,dst . ACCEPT   what bridgeFilter lets pass
//	  local6 src,src and out6 src,dst ........... ACCEPT   the way out
//	  inbound6 dst,dst, not from BR ............. ACCEPT   inbound=allow
//	  local6 dst,dst and out6 dst,src, not from BR,
//	    echo request ............................ ACCEPT   RFC 4890 4.3.1
//	  from BR ................................... REJECT   makes a dual-stack client fall back at once
//	  to BR ..................................... REJECT
//	  borrowed6 src,src, not bridged ............ DROP     it forwards for guests alone
//	ip6tables nat GANGWAY-POSTROUTING
//	  nat6 src,dst .............................. MASQUERADE
//	ip6tables mangle GANGWAY-FORWARD
//	  SYN, out6 src,dst or dst,src .............. TCPMSS to the path's MTU
//
// Where the kernel has no IPv6 these are left out. What keeps them from being read or installed doesn't
// keep those of IPv4 from it.
//
//	                       guests' bridge        uplink's bridge
//	guest ── port ──────────── gway0                  br0 ──────── eth0
//	                             └─ inner ══ outer ─┘
//	                      guard: IPv6 ^      ^ guard: what guests may send
//
//	guest ── port ──────────── gway0 ──> the host: routing ──> inet gangway, ip6 gangway ──> FORWARD ──> eth0
//	            guard: nothing retired ^                 what follows a tunnel, hairpin
//
// The guards are chains of family netdev: they see a frame before the bridge does, which so learns
// nothing from one that is dropped. One transaction puts a guard in the place of another. What it was
// made from is written down with its rules, so that it is known again whole or not. The same holds for the
// filter of what is routed, which stands before iptables' chains: its two tables change together.
//
// Both backends of iptables work: nf_tables and legacy. Rules are replaced by one
// iptables-restore --noflush, atomic for each table, jumps included, so that no packet meets a
// chain of ours half done; nothing that isn't ours is named in it.
//
// With nf_tables, iptables makes a table and the base chains that are used when they are first
// needed, and never removes them. Those that weren't there before us go with our chains if
// nothing is in them; the kernel refuses to delete one in which there is anything. A table is
// ours only as the kernel's object that appeared when we installed: one that others deleted and
// made anew, or restored, is theirs, also if it is empty. One that was deleted and came back with our
// next installation is ours. One in which others have something when we go is theirs from then on.
//
// Limits. Base chains that iptables adds for us to a table of others stay. The kernel stores a subnet with at most 64 interfaces in a set (hash:net,iface);
// the 65th is an error. With the legacy backend nobody tells us of changes, so what others
// break is seen at the next Observe; the same holds for the sets with either backend. br_netfilter that
// is loaded later is seen at the next Observe, too; until then bridged frames meet the rules for routed ones.
// Guards need Linux 5.10, which keeps a table's comment. On the way through an IPv6-only link multicast
// reaches the host, with GuardSpec.Hosts, too.
// A guest whose address is retired and that doesn't know its router's MAC address (from its advertisements)
// isn't told that: its solicitations are dropped.
// A guest speaks to the host and the outside from its network's subnet only: further addresses
// that somebody gives a bridge by hand lead nowhere. What we ACCEPT ends the way through
// iptables alone: nftables chains of others, firewalld's for one, see the packet, too.
// Where the kernel lacks what bridgeFilter takes, guests of different networks reach each other by IPv6.
// nft says of table ip6 gangway that iptables-nft manages it, wherever br_netfilter is there: it takes every table
// with a match of iptables' for one. A host whose kernel has no route to a destination, or forbids it by an
// unreachable or blackhole route, doesn't count as one that goes into a tunnel.
// A program that insists on the first place in INPUT or FORWARD, too, gets it until the next
// Observe. A machine whose iptables was switched to the other backend keeps the rules that
// were made by the former.
//
// The package is not responsible for: which entries belong in the sets (package plan), the
// bridges, their group and the IPv6-only link (package link), firewalld's zones, port forwards.
package firewall
