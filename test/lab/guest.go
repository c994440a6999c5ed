package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// GuestInterface is the only network interface of a guest.
const GuestInterface = "eth0"

// Guest stands for a virtual machine or a container: a namespace whose eth0 is a cable to the laptop.
// Its kernel autoconfigures IPv6; IPv4 comes with DHCP.
type Guest struct {
	*Host
	// Port is the laptop's end of the cable. It belongs to no bridge and is down until AttachTo, or
	// gangwayd, makes it part of one.
	Port string
	// MAC is the address of eth0, locally administered; the n-th guest has the same in every lab.
	MAC net.HardwareAddr

	lab  *Lab
	dir  string
	dhcp *process
}

// AddGuest adds a guest; its name is 1 to 10 letters or digits, unique in the lab.
func (l *Lab) AddGuest(ctx context.Context, name string) (*Guest, error) {
	if name == "" || len(name) > 10 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return nil, fmt.Errorf("cannot add guest %q: want a name of 1 to 10 letters or digits", name)
	}
	l.mu.Lock()
	if l.guests[name] != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("cannot add guest %q: %w", name, fs.ErrExist)
	}
	g := &Guest{lab: l, Port: "port" + "-" + name, MAC: mac(3, len(l.guests)+1), dir: filepath.Join(l.dir, "guest", name)}
	l.guests[name] = g
	l.mu.Unlock()
	if err := g.start(ctx, name); err != nil {
		return nil, fmt.Errorf("cannot add guest %q: %w", name, err)
	}
	return g, nil
}

func (g *Guest) start(ctx context.Context, name string) (err error) {
	for _, d := range []string{"run", "dhcpcd"} {
		if err := os.MkdirAll(filepath.Join(g.dir, d), 0o755); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{"resolv.conf": "", "dhcpcd.conf": dhcpcdConfig, "hook": fmt.Sprintf(dhcpcdHook, g.dir)} {
		if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o755); err != nil {
			return err
		}
	}
	if g.Host, err = g.lab.newHost("guest-" + name); err != nil {
		return err
	}
	binds := []bind{{filepath.Join(g.dir, "run"), "/run", 0}, {filepath.Join(g.dir, "resolv.conf"), "/etc/resolv.conf", 0}}
	if _, err := os.Stat("/var/lib/dhcpcd"); err == nil {
		binds = append(binds, bind{filepath.Join(g.dir, "dhcpcd"), "/var/lib/dhcpcd", 0})
	}
	if g.mnt, err = newMountNS(g.net, binds); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = g.Port
	laptop := g.lab.Laptop
	if err := laptop.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: GuestInterface, PeerNamespace: netlink.NsFd(int(g.net.Fd())), PeerHardwareAddr: g.MAC}); err != nil {
		return err
	}
	return errors.Join(g.setUp(GuestInterface), ctx.Err())
}

// AttachTo makes the guest's port part of a bridge on the laptop and switches it on: the guest gains carrier.
func (g *Guest) AttachTo(bridge string) error {
	laptop := g.lab.Laptop
	br, err := laptop.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %q: %w", bridge, err)
	}
	if err := laptop.editLink(g.Port, func(port netlink.Link) error { return laptop.nl.LinkSetMaster(port, br) }); err != nil {
		return err
	}
	return laptop.setUp(g.Port)
}

// SetCarrier switches the laptop's end of the guest's cable on or off.
func (g *Guest) SetCarrier(on bool) error {
	edit := g.lab.Laptop.nl.LinkSetDown
	if on {
		edit = g.lab.Laptop.nl.LinkSetUp
	}
	return g.lab.Laptop.editLink(g.Port, edit)
}

// Remove ends what runs on the guest and deletes it; its port disappears from the laptop.
func (g *Guest) Remove(ctx context.Context) error {
	if err := g.dhcp.stop(ctx, unix.SIGKILL); err != nil {
		return err
	}
	if err := killAll([]string{g.Namespace}, g.dir); err != nil {
		return err
	}
	if err := g.lab.Laptop.editLink(g.Port, g.lab.Laptop.nl.LinkDel); err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return err
	}
	l := g.lab
	l.mu.Lock()
	for i, h := range l.hosts {
		if h == g.Host {
			l.hosts = append(l.hosts[:i:i], l.hosts[i+1:]...)
		}
	}
	l.mu.Unlock() // the name stays taken, so that no two guests share a MAC
	return g.Host.close()
}

// WaitIPv6 waits for a usable IPv6 address of the guest within the prefix.
func (g *Guest) WaitIPv6(ctx context.Context, within netip.Prefix) (netip.Addr, error) {
	return g.WaitAddress(ctx, GuestInterface, within)
}

// Lease is what the guest's DHCP client holds.
type Lease struct {
	Reason  string // of the last change, as in dhcpcd-run-hooks(8): BOUND, REBOOT, RENEW, ...
	Address netip.Prefix
	Router  netip.Addr
	DNS     []netip.Addr
	Server  netip.Addr
}

const dhcpcdConfig = `noarp
noipv4ll
nodelay
timeout 0
option routers, domain_name_servers, domain_name, interface_mtu
require dhcp_server_identifier
`

// dhcpcdHook keeps the lease as a file beside it, and the guest's resolv.conf.
const dhcpcdHook = `#!/bin/sh
[ "$interface" = eth0 ] || exit 0
cd %s || exit 1
case $reason in
BOUND|RENEW|REBIND|REBOOT)
	for s in $new_domain_name_servers; do echo "nameserver $s"; done >resolv.conf
	printf '{"Reason":"%%s","Address":"%%s/%%s","Router":"%%s","Server":"%%s","Resolvers":"%%s"}' "$reason" \
		"$new_ip_address" "$new_subnet_cidr" "${new_routers%%%% *}" "$new_dhcp_server_identifier" "$new_domain_name_servers" >lease.new
	mv lease.new lease ;;
EXPIRE|NAK|NOCARRIER|STOP|STOPPED|RELEASE|FAIL|DEPARTED) : >resolv.conf; rm -f lease ;;
esac
exit 0
`

// DHCP starts the guest's DHCP client, dhcpcd. It asks whenever the guest gains carrier. WaitLease waits for the answer.
func (g *Guest) DHCP(ctx context.Context) (err error) {
	if g.dhcp != nil && g.dhcp.alive() == nil {
		return nil
	}
	name := "dhcp-" + strings.TrimPrefix(g.Name, "guest-")
	g.dhcp, err = g.lab.spawn(g.Host, name, "dhcpcd", "-4", "-B", "-f", filepath.Join(g.dir, "dhcpcd.conf"), "-c", filepath.Join(g.dir, "hook"), GuestInterface)
	return errors.Join(err, ctx.Err())
}

// StopDHCP ends the DHCP client, which takes the address away.
func (g *Guest) StopDHCP(ctx context.Context) error { return g.dhcp.stop(ctx, unix.SIGTERM) }

// Renew makes the DHCP client ask again for its lease, without a loss of carrier.
func (g *Guest) Renew(ctx context.Context) error {
	_, err := g.Run(ctx, "dhcpcd", "--rebind", GuestInterface)
	return err
}

// Lease returns what the DHCP client holds; an error wrapping fs.ErrNotExist if nothing.
func (g *Guest) Lease() (Lease, error) {
	var raw struct{ Reason, Address, Router, Server, Resolvers string }
	b, err := os.ReadFile(filepath.Join(g.dir, "lease"))
	if err == nil {
		err = json.Unmarshal(b, &raw)
	}
	l := Lease{Reason: raw.Reason}
	if err == nil {
		l.Address, err = netip.ParsePrefix(raw.Address)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("cannot read lease of %q: %w", g.Name, err)
	}
	// A server need not hand out any of these: absent is invalid, the zero Addr.
	l.Router, _ = netip.ParseAddr(raw.Router)
	l.Server, _ = netip.ParseAddr(raw.Server)
	for _, s := range strings.Fields(raw.Resolvers) {
		if a, err := netip.ParseAddr(s); err == nil {
			l.DNS = append(l.DNS, a)
		}
	}
	return l, nil
}

// WaitLease waits until the DHCP client holds a lease within the prefix; the zero Prefix accepts any.
func (g *Guest) WaitLease(ctx context.Context, within netip.Prefix) (Lease, error) {
	var l Lease
	err := poll(ctx, func() (bool, error) {
		var err error
		if g.dhcp != nil {
			if err := g.dhcp.alive(); err != nil {
				return false, err
			}
		}
		l, err = g.Lease()
		return err == nil && (!within.IsValid() || within.Contains(l.Address.Addr())), err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("cannot see lease of %q within %s: %w", g.Name, within, err)
	}
	return l, nil
}
