package lab

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// GuestInterface is the only network interface of a guest, and of a station.
const GuestInterface = "eth0"

// Machine is what guests and stations have in common: an ordinary Linux whose one interface, eth0, is a cable to elsewhere. Its
// kernel autoconfigures IPv6; IPv4 comes with DHCP.
type Machine struct {
	*Host
	// MAC is the address of eth0, locally administered; the n-th guest has the same in every lab.
	MAC net.HardwareAddr

	lab  *Lab
	dir  string
	dhcp *process
}

// MachineOptions describes a guest or a station. The zero value is a Linux as distributions ship it, without NetworkManager.
type MachineOptions struct {
	// OptimisticDAD lets eth0 use an address while its uniqueness is being checked (RFC 4429).
	OptimisticDAD bool
	// Sysctl is set before eth0 comes up: "net.ipv6.conf.eth0.use_tempaddr": "2".
	Sysctl map[string]string
	// MAC of eth0; nil is one of the lab's own.
	MAC net.HardwareAddr
}

// plain is what the kernel does by itself, whatever this machine's own settings are.
var plain = map[string]string{
	"net.ipv6.conf.eth0.accept_ra": "1", "net.ipv6.conf.eth0.autoconf": "1",
	"net.ipv6.conf.eth0.accept_dad": "1", "net.ipv6.conf.eth0.dad_transmits": "1",
}

// newMachine makes the namespaces. The cable is laid by wire.
func (l *Lab) newMachine(name, dir string, mac net.HardwareAddr, o MachineOptions) (m *Machine, err error) {
	m = &Machine{lab: l, dir: filepath.Join(l.dir, dir), MAC: mac}
	if o.MAC != nil {
		m.MAC = o.MAC
	}
	for _, d := range []string{"run", "dhcpcd"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for file, text := range map[string]string{"resolv.conf": "", "dhcpcd.conf": dhcpcdConfig, "hook": fmt.Sprintf(dhcpcdHook, m.dir)} {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o755); err != nil {
			return nil, err
		}
	}
	if m.Host, err = l.newHost(name); err != nil {
		return nil, err
	}
	binds := []bind{{filepath.Join(m.dir, "run"), "/run", 0}, {filepath.Join(m.dir, "resolv.conf"), "/etc/resolv.conf", 0}}
	if _, err := os.Stat("/var/lib/dhcpcd"); err == nil {
		binds = append(binds, bind{filepath.Join(m.dir, "dhcpcd"), "/var/lib/dhcpcd", 0})
	}
	if m.mnt, err = newMountNS(m.net, binds); err != nil {
		return nil, err
	}
	return m, nil
}

// wire lays the cable between eth0 and a port on another host, in the bridge of that index if it isn't 0, and switches eth0 on.
func (m *Machine) wire(to *Host, port string, bridge int, o MachineOptions) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, bridge
	if err := to.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: GuestInterface, PeerNamespace: netlink.NsFd(int(m.net.Fd())), PeerHardwareAddr: m.MAC}); err != nil {
		return fmt.Errorf("cannot connect %q: %w", m.Name, err)
	}
	settings := maps.Clone(plain)
	if o.OptimisticDAD {
		settings["net.ipv6.conf.eth0.optimistic_dad"], settings["net.ipv6.conf.eth0.use_optimistic"] = "1", "1"
	}
	maps.Copy(settings, o.Sysctl)
	if err := m.sysctls(settings); err != nil {
		return err
	}
	return m.setUp(GuestInterface)
}

// WaitIPv6 waits for a usable IPv6 address of the machine within the prefix.
func (m *Machine) WaitIPv6(ctx context.Context, within netip.Prefix) (netip.Addr, error) {
	return m.WaitAddress(ctx, GuestInterface, within)
}

// Send puts frames on the cable of eth0 as they are, whatever their addresses.
func (m *Machine) Send(frames ...[]byte) error { return m.Host.Send(GuestInterface, frames...) }

// IPv6 reads what the kernel of the machine holds for eth0.
func (m *Machine) IPv6() (IPv6State, error) { return m.Host.IPv6(GuestInterface) }

// WatchIPv6 follows IPv6 on eth0 until ctx ends or the watch is closed.
func (m *Machine) WatchIPv6(ctx context.Context) (*Watch, error) {
	return m.Host.WatchIPv6(ctx, GuestInterface)
}
