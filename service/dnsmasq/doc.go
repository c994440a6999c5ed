// Package dnsmasq is the server room: one dnsmasq for each network that serves DHCPv4 and
// DNS to guests, started, told, watched and stopped as package plan decides.
//
// The children outlive the process: one that comes after it finds them by their record
// in the runtime directory, proves by process id, start time, command line, user and network
// namespace that each is the one that was recorded, and goes on with it.
//
// The room is not responsible for bridges and their addresses (package link), for
// letting packets reach port 53 and 67 (package firewall), nor for choosing upstreams
// (package plan). It serves no IPv6 addresses; DNS is answered over IPv6, too.
package dnsmasq
