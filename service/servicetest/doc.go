// Package servicetest is a machine for tests: one Machine holds links, addresses, routes,
// rules, sysctls, a packet filter, name servers and uplinks, and gives views of itself as the
// rooms of package service. Operations change it as the kernel would: what hangs on a link
// goes with the link, what is there already is success. It can fail an operation, and it can
// "kill" the process between two operations or in the middle of one.
//
// It is a model. That the real kernel, iptables and dnsmasq behave in this way is shown by
// the tests of the rooms themselves; nothing here replaces those.
package servicetest
