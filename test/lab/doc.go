// Package lab builds a laptop out of network namespaces and real parts, so that a test, a
// demonstration or a benchmark can carry it from one site to another.
//
//	        internet  198.51.100.10, 2001:db8:ffff::10, echo on port 7
//	       /        \
//	router a        router b        real dnsmasq (DHCPv4, RA, DNS), BCP 38 filter
//	    |              |
//	 switch a       switch b        Site.Unplug cuts the port, the laptop loses carrier
//	    |              |
//	  wlan0           eth0
//	+------------------------+
//	| laptop                 |      real dbus-daemon, polkitd, NetworkManager, and
//	|  port0 port1 ...       |      whatever the bus activates, gangwayd among them
//	+----|-----|-------------+
//	   eth0  eth0                   guests, real dhcpcd
//
// Everything lives in namespaces whose names begin with the lab's prefix; the network namespace
// of the caller is never touched, and no packet leaves. The laptop also has a mount namespace of
// its own: /run, /etc and /var/lib/NetworkManager are private (of this machine's /etc it has a read-only view),
// and /sys is read-only, which keeps NetworkManager from waiting for udev.
//
// Labs run side by side. [Lab.Close] removes everything, also after a start that failed half
// way; [Sweep] removes what a killed process left.
//
// It needs root, Linux, and the programs dbus-daemon, dnsmasq, nft, and, as far as they are used,
// NetworkManager, polkitd and dhcpcd. It is not responsible for building gangwayd, for
// what gangwayd ought to do, or for radio, VLANs and modems.
package lab
