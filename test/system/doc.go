// Package system proves gangwayd as a whole: the built program on a laptop of namespaces, started by a
// real bus, asked by real clients, with NetworkManager, polkitd, dnsmasq, DHCP clients and packets.
//
// It is not responsible for how fast a switch is (test/bench), for the wire format of the bus (test/bus), nor for what one
// package can show by itself.
package system
