// Package install tests what `meson install` puts on a machine: that it is complete, and that those
// who read it (systemd, the bus, polkit, NetworkManager) understand it as it is meant.
//
// It is not responsible for what the installed daemon does.
package install
