// Package bus holds the tests of our objects on a real bus: dbus-daemon with our policy, polkitd
// with our actions, callers of several users, busctl and gdbus.
//
// Behind the bus is a backend that holds state but has no kernel: what networks do is tested
// elsewhere. The tests need root, dbus-daemon, polkitd, busctl, gdbus and xmllint.
package bus
