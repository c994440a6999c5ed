package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Lease is what the machine's DHCP client holds.
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

// dhcpcdHook keeps the lease as a file beside it, and the machine's resolv.conf.
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

// DHCP starts the machine's DHCP client, dhcpcd. It asks whenever the machine gains carrier. WaitLease waits for the answer.
func (m *Machine) DHCP(ctx context.Context) (err error) {
	if m.dhcp != nil && m.dhcp.alive() == nil {
		return nil
	}
	m.dhcp, err = m.lab.spawn(m.Host, "dhcp-"+strings.TrimPrefix(m.Name, "guest-"), "dhcpcd", "-4", "-B", "-f", filepath.Join(m.dir, "dhcpcd.conf"), "-c", filepath.Join(m.dir, "hook"), GuestInterface)
	return errors.Join(err, ctx.Err())
}

// StopDHCP ends the DHCP client, which takes the address away.
func (m *Machine) StopDHCP(ctx context.Context) error { return m.dhcp.stop(ctx, unix.SIGTERM) }

// Renew makes the DHCP client ask again for its lease, without a loss of carrier.
func (m *Machine) Renew(ctx context.Context) error {
	_, err := m.Run(ctx, "dhcpcd", "--rebind", GuestInterface)
	return err
}

// Lease returns what the DHCP client holds; an error wrapping fs.ErrNotExist if nothing.
func (m *Machine) Lease() (Lease, error) {
	var raw struct{ Reason, Address, Router, Server, Resolvers string }
	b, err := os.ReadFile(filepath.Join(m.dir, "lease"))
	if err == nil {
		err = json.Unmarshal(b, &raw)
	}
	l := Lease{Reason: raw.Reason}
	if err == nil {
		l.Address, err = netip.ParsePrefix(raw.Address)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("cannot read lease of %q: %w", m.Name, err)
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
func (m *Machine) WaitLease(ctx context.Context, within netip.Prefix) (Lease, error) {
	var l Lease
	err := poll(ctx, func() (bool, error) {
		var err error
		if m.dhcp != nil {
			if err := m.dhcp.alive(); err != nil {
				return false, err
			}
		}
		l, err = m.Lease()
		return err == nil && (!within.IsValid() || within.Contains(l.Address.Addr())), err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("cannot see lease of %q within %s: %w", m.Name, within, err)
	}
	return l, nil
}
