package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/service/vnet"
	"gangway/test/lab"
)

// shippedConfig is what NetworkManager is told of our bridges.
const shippedConfig = `[device-gangway-shared]
match-device=interface-name:gwb-*
ignore-carrier=no
`

// desk is a lab's laptop with a Reader.
type desk struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
	r   *Reader
}

// newDesk starts a lab whose profiles, by interface, are replaced; NetworkManager has its primary connection.
func newDesk(t *testing.T, o lab.Options, profiles map[string]string) *desk {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		t.Fatal("needs root, for namespaces of its own")
	}
	o.NoPolkit, o.NoNetworkManager = true, true
	d := &desk{Lab: lab.Start(t, o), t: t}
	var cancel func()
	d.ctx, cancel = context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	etc := filepath.Join(d.Dir(), "etc/NetworkManager")
	d.check(os.WriteFile(filepath.Join(etc, "conf.d/90-gangway.conf"), []byte(shippedConfig), 0o644))
	for ifname, text := range profiles {
		d.check(os.WriteFile(filepath.Join(etc, "system-connections", ifname+".nmconnection"), []byte(text), 0o600))
	}
	for _, s := range d.Sites {
		// With an address that the kernel made of an advertisement, NetworkManager would take the interface
		// for somebody else's.
		d.check(d.Laptop.Sysctl("net.ipv6.conf."+s.Uplink+".accept_ra", "0"))
		_, err := d.Laptop.Run(d.ctx, "ip", "-6", "addr", "flush", "dev", s.Uplink, "scope", "global")
		d.check(err)
	}
	d.check(d.NM.Start(d.ctx))
	d.check(d.NM.WaitPrimary(d.ctx, d.Expected()))
	bus, err := d.Bus()
	d.check(err)
	t.Cleanup(func() { bus.Close() })
	d.r = New(Options{Bus: bus, ResolvConf: filepath.Join(d.Dir(), "etc/resolv.conf")})
	return d
}

func (d *desk) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) nmcli(args ...string) string {
	d.t.Helper()
	out, err := d.NM.Cli(d.ctx, args...)
	d.check(err)
	return strings.TrimSpace(out)
}

// inside runs f in the laptop's network namespace, where the daemon is.
func (d *desk) inside(f func() error) error { return d.Laptop.Do(f) }

// read is a reading.
func (d *desk) read() vnet.Uplinks {
	d.t.Helper()
	var u vnet.Uplinks
	d.check(d.inside(func() (err error) {
		l := laptop{tb: d.t}
		u, err = d.r.Read(d.ctx, l.dump())
		return err
	}))
	return u
}

// uplink waits until the reading has the uplink, usable unless it is a port, with IPv6 in place, and returns it.
func (d *desk) uplink(ifname string) vnet.Uplink {
	d.t.Helper()
	var u vnet.Uplink
	d.until("uplink "+ifname+" is there", func() bool {
		all := d.read()
		var ok bool
		u, ok = all.Find(ifname)
		return ok && (u.Usable || u.Bridge != "")
	})
	return u
}

func (d *desk) until(what string, cond func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(45 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			d.t.Fatalf("waited in vain until %s; NetworkManager says\n%s", what, d.nmcli("-f", "all", "device"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (d *desk) share(u vnet.Uplink) error {
	return d.inside(func() error { return d.r.Share(d.ctx, u) })
}

func (d *desk) unshare(u vnet.Uplink) error {
	return d.inside(func() error { return d.r.Unshare(d.ctx, u) })
}

// presence waits until the interface has everything of IPv4 and IPv6, and returns it.
func (d *desk) presence(ifname string, six bool) (p presence) {
	d.t.Helper()
	d.until("all addresses are on "+ifname, func() bool {
		d.check(d.inside(func() (err error) { p, err = presenceOf(ifname); return err }))
		return p.default4 && p.has4() && (!six || p.default6 && p.advertised.IsValid() && p.local.IsValid())
	})
	return p
}

// face is what others see of an interface, and what the host has by it.
type face struct {
	MAC       string
	MTU       int
	Addresses []netip.Prefix
	Routes    []string // without the interface
	DNS       []netip.Addr
	Search    string
	Zone      string
	Metered   string
}

func (d *desk) face(ifname string) face {
	d.t.Helper()
	var f face
	d.check(d.inside(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		f.MAC, f.MTU = link.Attrs().HardwareAddr.String(), link.Attrs().MTU
		addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
		for _, a := range addresses {
			if a.Flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_TENTATIVE) == 0 {
				ip, _ := netip.AddrFromSlice(a.IP)
				bits, _ := a.Mask.Size()
				f.Addresses = append(f.Addresses, netip.PrefixFrom(ip.Unmap(), bits))
			}
		}
		return err
	}))
	slices.SortFunc(f.Addresses, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	for _, family := range []string{"-4", "-6"} {
		out, err := d.Laptop.Run(d.ctx, "ip", family, "route", "show", "dev", ifname)
		d.check(err)
		for line := range strings.Lines(out) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " expires")
			// The kernel's own, of an advertisement that came while NetworkManager had let go of the interface.
			if strings.HasSuffix(line, " proto kernel metric 256") || strings.HasSuffix(line, " proto ra metric 1024") {
				continue
			}
			f.Routes = append(f.Routes, line)
		}
	}
	slices.Sort(f.Routes)
	u := d.uplink(ifname)
	for _, a := range u.Nameservers {
		f.DNS = append(f.DNS, a.WithZone(""))
	}
	f.Metered = u.Metered
	f.Search = d.nmcli("-g", "IP4.DOMAIN,IP4.SEARCHES", "device", "show", ifname)
	f.Zone = d.nmcli("-g", "connection.zone", "connection", "show", u.ConnectionUUID)
	return f
}

// flow measures the host's own traffic of one socket to the internet until the returned function is called, which
// returns the longest time without an answer.
func (d *desk) flow(echo netip.AddrPort) func() time.Duration {
	d.t.Helper()
	p, err := d.Laptop.ProbeFlow(d.ctx, echo, lab.ProbeOptions{})
	d.check(err)
	_, err = p.WaitSuccess(d.ctx, time.Time{})
	d.check(err)
	return func() time.Duration {
		_, err := p.WaitSuccess(d.ctx, time.Now())
		d.check(err)
		r := p.Finish()
		d.t.Log(echo, r)
		return r.Blackout(time.Time{})
	}
}

// ours lists the profiles that Share made, and is nil when there are none.
func (d *desk) ours() []string {
	d.t.Helper()
	list, err := readProfiles(d.ctx, d.r.bus)
	d.check(err)
	var out []string
	for _, p := range list {
		if p.sharedFrom != "" {
			out = append(out, p.id)
		}
	}
	return out
}

// wantOriginal checks that everything is as if nothing had happened.
func (d *desk) wantOriginal(ifname, uuid string) {
	d.t.Helper()
	d.until(ifname+" is on its original profile and the bridge is gone", func() bool {
		dev, err := d.r.device(d.ctx, ifname)
		_, missing := d.Laptop.Netlink().LinkByName("gwb-" + ifname)
		return err == nil && dev.uuid == uuid && errors.As(missing, new(netlink.LinkNotFoundError)) && d.ours() == nil
	})
}

// block cuts the laptop off site b's DHCP server, unblock undoes it.
func (d *desk) block() {
	d.t.Helper()
	_, err := d.Site("b").Router.RunInput(d.ctx, "table inet blocked {\nchain input {\ntype filter hook input priority 0\nudp dport 67 drop\n}\n}\n", "nft", "-f", "-")
	d.check(err)
}

func (d *desk) unblock() {
	d.t.Helper()
	_, err := d.Site("b").Router.Run(d.ctx, "nft", "delete", "table", "inet", "blocked")
	d.check(err)
}

// isPort tells whether the interface is a port of a bridge.
func (d *desk) isPort(ifname string) bool {
	link, err := d.Laptop.Netlink().LinkByName(ifname)
	return err == nil && link.Attrs().MasterIndex != 0
}

// wait is until for other goroutines: it just ends.
func (d *desk) wait(cond func() bool) {
	for !cond() && d.ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

func (d *desk) find(ifname string) (vnet.Uplink, bool) {
	d.t.Helper()
	u := d.read()
	return u.Find(ifname)
}

func addressTexts(f face) (out []string) {
	for _, a := range f.Addresses {
		out = append(out, a.String())
	}
	return out
}

// withoutNewLocal drops link-local addresses that were not there before, and the routes of all such: NetworkManager
// adds an address of its own to one that is given.
func withoutNewLocal(is, was face) face {
	isLocal := func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() }
	is.Addresses = slices.DeleteFunc(is.Addresses, func(p netip.Prefix) bool { return isLocal(p) && !slices.Contains(was.Addresses, p) })
	is.Routes = slices.DeleteFunc(is.Routes, func(line string) bool {
		return strings.HasPrefix(line, "fe80::/64") && !slices.Contains(was.Routes, line)
	})
	return is
}

// isDADProbe tells whether a frame is a neighbour solicitation of duplicate address detection.
func isDADProbe(f lab.Frame) bool {
	const icmpv6, solicitation = 58, 135
	return f.EtherType() == lab.EtherIPv6 && f.SrcIP().IsUnspecified() && f.Protocol() == icmpv6 && len(f.Data) > 54 && f.Data[54] == solicitation
}

// sharerVariable makes this program a process that shares an uplink, to be killed in the midst of it.
const sharerVariable = "GANGWAY_UPLINK_TEST_SHARE"

func beSharer() int {
	bus, err := godbus.Connect(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"))
	if err == nil {
		r := New(Options{Bus: bus})
		r.rollbackAfter = 3 * time.Second
		err = r.Share(context.Background(), vnet.Uplink{Interface: os.Getenv(sharerVariable), Kind: vnet.Ethernet})
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// startSharer starts such a process.
func (d *desk) startSharer(ifname string) *exec.Cmd {
	d.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), sharerVariable+"="+ifname, "DBUS_SYSTEM_BUS_ADDRESS="+d.BusAddress())
	cmd.Stderr = os.Stderr
	d.check(d.Laptop.Start(cmd))
	return cmd
}
