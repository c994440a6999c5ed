// Package lab builds a laptop out of network namespaces and real parts, so that a test, a
// demonstration or a benchmark can carry it from one site to another.
//
//	        internet  198.51.100.10, 2001:db8:ffff::10, echo on port 7
//	       /        \
//	router a        router b        real dnsmasq (DHCPv4, RA, DNS) or radvd (RA), BCP 38 filter;
//	    |              |            Site.AddRouter adds more
//	 switch a       switch b        Cable.Unplug cuts the port, the laptop loses carrier;
//	    |              |            Site.AddStation puts neighbours here
//	  wlan0           eth0          SiteOptions.More lays further cables, .Bridge makes one a bridge's port
//	+------------------------+
//	| laptop                 |      real dbus-daemon, polkitd, NetworkManager, and
//	|  port0 port1 ...       |      whatever the bus activates, gangwayd among them
//	+----|-----|-------------+
//	   eth0  eth0                   guests: their kernel's own IPv6, real dhcpcd
//
// A site may be an access point's (SiteOptions.WiFi), which counts the frames that no station may send, or a mobile carrier's (.WWAN), a line
// without a link layer; Lab.StartVPN lays a tunnel over everything. To NetworkManager the one is Ethernet, the other a TUN device.
//
// What happens to a guest's IPv6 is timed by Machine.WatchIPv6; what passes a link is told apart by
// Cable.Capture or Host.Capture and the predicates in class.go; Machine.Send puts there what no kernel would.
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
// NetworkManager, polkitd, radvd and dhcpcd. It is not responsible for building gangwayd, for
// what gangwayd ought to do, or for radio, VLANs and modems.
package lab
