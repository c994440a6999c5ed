package uplink

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/service/vnet"
	"gangway/test/lab"
)

var sameAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// gap is how long the host's own traffic may be interrupted: a second, and what a busy machine needs on top.
const gap = 5 * time.Second

// TestShare goes with an uplink by DHCP and SLAAC from sharing to unsharing, through what may happen in between.
func TestShare(t *testing.T) {
	t.Parallel()
	d := newDesk(t, lab.Options{}, nil)
	d.presence("eth0", true)
	d.presence("wlan0", true)
	was := d.face("eth0")
	// One that somebody added by hand goes, and isn't waited for.
	_, err := d.Laptop.Run(d.ctx, "sh", "-c", "ip addr add 10.20.0.9/32 dev eth0; ip route add default dev wlan0 metric 9000")
	d.check(err)
	eth := d.uplink("eth0")
	if eth.Unshareable != "" || eth.SharedFrom != "" || eth.Bridge != "" {
		t.Errorf("before: %+v", eth)
	}

	four, six := d.flow(lab.EchoIPv4), d.flow(lab.EchoIPv6)
	frames, err := d.Laptop.Capture(d.ctx, "eth0")
	d.check(err)
	// Two callers at a time.
	result := make(chan error, 2)
	for range 2 {
		go func() { result <- d.share(eth) }()
	}
	d.check(errors.Join(<-result, <-result))
	if a, b := four(), six(); a > gap || b > gap {
		t.Errorf("sharing interrupted IPv4 for %v, IPv6 for %v", a, b)
	}
	if n := frames.Count(isDADProbe); n != 0 {
		t.Errorf("asked %d times whether somebody else has the host's addresses, and waited for it", n)
	}
	d.check(frames.Close())
	if diff := cmp.Diff(was, d.face("gwb-eth0"), sameAddr); diff != "" {
		t.Error("(-before +shared):\n" + diff)
	}
	wantShared := func(when string) {
		t.Helper()
		br, port := d.uplink("gwb-eth0"), d.uplink("eth0")
		if br.Kind != vnet.BridgeKind || br.SharedFrom != eth.ConnectionUUID || br.Unshareable != "" || br.Bridge != "" {
			t.Errorf("%s: bridge %+v", when, br)
		}
		if port.Kind != vnet.Ethernet || port.Bridge != "gwb-eth0" || port.Usable || port.Reason != "is a port of gwb-eth0" ||
			port.ConnectionUUID != eth.ConnectionUUID || port.Connection != eth.Connection || len(port.Addresses) != 0 || port.Unshareable != "" {
			t.Errorf("%s: port %+v", when, port)
		}
		d.until("it carries the default routes, "+when, func() bool {
			u := d.read()
			return u.Primary == "gwb-eth0" && u.Primary6 == "gwb-eth0" && u.Physical == "gwb-eth0"
		})
	}
	wantShared("shared")

	ours := d.ours()
	if len(ours) != 2 {
		t.Errorf("profiles %q", ours)
	}
	for _, u := range []vnet.Uplink{d.uplink("gwb-eth0"), d.uplink("eth0"), eth} {
		if err := d.share(u); err != nil || !cmp.Equal(d.ours(), ours) {
			t.Errorf("shared again: %v, profiles %q, before %q", err, d.ours(), ours)
		}
	}
	for key, want := range map[string]string{"accept_dad": "1", "dad_transmits": "1"} {
		if got, _ := d.Laptop.Run(d.ctx, "cat", "/proc/sys/net/ipv6/conf/gwb-eth0/"+key); strings.TrimSpace(got) != want {
			t.Errorf("%s is %q afterwards", key, got)
		}
	}

	// NetworkManager's own restart, and that of the machine: no bridge, nothing remembered of before.
	d.check(d.NM.Restart(d.ctx))
	d.check(d.NM.WaitPrimary(d.ctx, "gwb-eth0"))
	wantShared("NetworkManager restarted")
	d.check(d.NM.Stop(d.ctx))
	if br := d.uplink("gwb-eth0"); br.SharedFrom != eth.ConnectionUUID || d.uplink("eth0").Bridge != "gwb-eth0" {
		t.Errorf("without NetworkManager: %+v", br)
	}
	if u := d.read(); u.Primary6 != "gwb-eth0" {
		t.Errorf("without NetworkManager: primary6 %q", u.Primary6)
	}
	link, err := d.Laptop.Netlink().LinkByName("gwb-eth0")
	d.check(err)
	d.check(d.Laptop.Netlink().LinkDel(link))
	_, err = d.Laptop.Run(d.ctx, "sh", "-c", "rm -r /run/NetworkManager/devices; ip link set eth0 down; ip addr flush dev eth0")
	d.check(err)
	d.check(d.NM.Start(d.ctx))
	d.check(d.NM.WaitPrimary(d.ctx, "gwb-eth0"))
	wantShared("booted")
	d.presence("gwb-eth0", true)
	if diff := cmp.Diff(was, d.face("gwb-eth0"), sameAddr); diff != "" {
		t.Error("(-before +booted):\n" + diff)
	}

	// The bridge fails over as the interface did.
	cut := time.Now()
	d.check(d.Site("b").Unplug())
	d.check(d.NM.WaitPrimary(d.ctx, "wlan0"))
	t.Log("NetworkManager's primary moved after", time.Since(cut))
	d.check(d.Site("b").Plug())
	d.check(d.NM.WaitPrimary(d.ctx, "gwb-eth0"))
	d.presence("gwb-eth0", true)
	wantShared("plugged in again")

	four, six = d.flow(lab.EchoIPv4), d.flow(lab.EchoIPv6)
	d.check(d.unshare(d.uplink("eth0")))
	if a, b := four(), six(); a > gap || b > gap {
		t.Errorf("unsharing interrupted IPv4 for %v, IPv6 for %v", a, b)
	}
	d.wantOriginal("eth0", eth.ConnectionUUID)
	if diff := cmp.Diff(was, d.face("eth0"), sameAddr); diff != "" {
		t.Error("(-before +unshared):\n" + diff)
	}
	d.check(d.unshare(eth)) // which it isn't
}

// carriedProfile is of an interface with everything said explicitly that a bridge would have otherwise.
const carriedProfile = `[connection]
id=Desk
uuid=67616e67-7761-4792-ad6c-616200000002
type=ethernet
interface-name=eth0
zone=work
metered=1
[ethernet]
mtu=1440
cloned-mac-address=02:11:22:33:44:55
[ipv4]
method=manual
address1=10.20.0.77/24,10.20.0.1
address2=10.21.0.77/16
dns=10.20.0.1;9.9.9.9;
dns-search=desk.example;
route-metric=77
route1=10.99.0.0/16,10.20.0.9,88
may-fail=false
[ipv6]
method=auto
addr-gen-mode=stable-privacy
`

// leasedProfile is of one whose identities towards DHCP servers depend on its UUID and the interface's name.
const leasedProfile = `[connection]
id=Lease
uuid=67616e67-7761-4792-ad6c-616200000001
type=ethernet
interface-name=wlan0
[ipv4]
method=auto
dhcp-client-id=stable
route-metric=600
[ipv6]
method=auto
dhcp-duid=stable-uuid
addr-gen-mode=stable-privacy
route-metric=600
`

func TestShareCarriesOver(t *testing.T) {
	t.Parallel()
	sites := lab.DefaultSites()
	sites[0].IPv6 = netip.Prefix{}
	d := newDesk(t, lab.Options{Sites: sites}, map[string]string{"eth0": carriedProfile, "wlan0": leasedProfile})
	// Site a has addresses by DHCPv6 and no others.
	router := d.Site("a").Router
	_, err := router.Run(d.ctx, "sh", "-c", "ip -6 addr add 2001:db8:a::1/64 dev lan0 nodad; "+
		"dnsmasq --conf-file=/dev/null --port=0 --interface=lan0 --enable-ra --dhcp-leasefile=/dev/null --pid-file= --user=root "+
		"--dhcp-range=2001:db8:a::1000,2001:db8:a::ffff,64,1h --ra-param=lan0,10,600")
	d.check(err)

	for _, c := range []struct {
		ifname string
		global bool // has an address by SLAAC
		want   []string
	}{
		{"eth0", true, []string{"10.20.0.77/24", "10.21.0.77/16", "default via 10.20.0.1 proto static metric 77", "10.99.0.0/16 via 10.20.0.9 proto static metric 88"}},
		{"wlan0", false, []string{"2001:db8:a::"}},
	} {
		d.until("all addresses are there", func() bool {
			var p presence
			d.check(d.inside(func() (err error) { p, err = presenceOf(c.ifname); return err }))
			return p.default4 && p.default6 && len(p.addresses) >= 2 && p.local.IsValid() && p.advertised.IsValid() == c.global
		})
		was := d.face(c.ifname)
		all := strings.Join(append(was.Routes, addressTexts(was)...), "\n")
		for _, want := range c.want {
			if !strings.Contains(all, want) {
				t.Fatalf("%s lacks %q before: %+v", c.ifname, want, was)
			}
		}
		d.check(d.share(d.uplink(c.ifname)))
		is := withoutNewLocal(d.face("gwb-"+c.ifname), was)
		if diff := cmp.Diff(was, is, sameAddr); diff != "" {
			t.Errorf("%s (-before +shared):\n%s", c.ifname, diff)
		}
		port, err := d.Laptop.Netlink().LinkByName(c.ifname)
		d.check(err)
		if port.Attrs().HardwareAddr.String() != was.MAC || port.Attrs().MTU != was.MTU {
			t.Errorf("port has %s, MTU %d; before %s, %d", port.Attrs().HardwareAddr, port.Attrs().MTU, was.MAC, was.MTU)
		}
		d.check(d.unshare(d.uplink("gwb-" + c.ifname)))
		if diff := cmp.Diff(was, d.face(c.ifname), sameAddr); diff != "" {
			t.Errorf("%s (-before +unshared):\n%s", c.ifname, diff)
		}
	}

	// Where somebody deletes the original meanwhile, it comes back.
	was := d.face("eth0")
	uuid := d.uplink("eth0").ConnectionUUID
	d.check(d.share(d.uplink("eth0")))
	d.nmcli("connection", "delete", uuid)
	d.check(d.inside(func() error { _, err := d.r.Read(d.ctx, (&laptop{tb: t}).dump()); return err }))
	d.check(d.unshare(d.uplink("gwb-eth0")))
	d.wantOriginal("eth0", uuid)
	is := withoutNewLocal(d.face("eth0"), was)
	if diff := cmp.Diff(was, is, sameAddr); diff != "" {
		t.Error("(-before +restored):\n" + diff)
	}
}

// failed tells whether the error is of kind Failed and has the words.
func failed(err error, words ...string) bool {
	return err != nil && vnet.KindOf(err) == vnet.Failed &&
		!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) })
}

// TestShareRollsBack cuts the uplink off its DHCP server first, so that sharing can't succeed.
func TestShareRollsBack(t *testing.T) {
	t.Parallel()
	d := newDesk(t, lab.Options{}, nil)
	d.presence("eth0", true)
	eth := d.uplink("eth0")
	d.block()
	d.r.shareWithin = 2 * time.Second

	err := d.share(eth)
	if !failed(err, "no IPv4 address after 2s; rolled back") {
		t.Errorf("no lease: %v", err)
	}
	d.wantOriginal("eth0", eth.ConnectionUUID)
	eth.Unshareable = ""

	ctx, cancel := context.WithCancel(d.ctx)
	go func() {
		defer cancel()
		d.wait(func() bool { return d.isPort("eth0") })
	}()
	err = d.inside(func() error { return d.r.Share(ctx, eth) })
	if !failed(err, "context canceled; rolled back") {
		t.Errorf("cancelled: %v", err)
	}
	d.wantOriginal("eth0", eth.ConnectionUUID)

	// Killed in the midst of it: NetworkManager does it alone.
	cmd := d.startSharer("eth0")
	d.until("it is half done", func() bool { return d.isPort("eth0") })
	d.check(cmd.Process.Signal(unix.SIGKILL))
	cmd.Wait()
	d.wantOriginal("eth0", eth.ConnectionUUID)

	// Unsharing rolls back, too.
	d.unblock()
	d.nmcli("connection", "up", eth.Connection) // its next question to a DHCP server would take a while
	d.presence("eth0", true)
	d.r.shareWithin = 15 * time.Second
	d.check(d.share(eth))
	d.block()
	d.r.shareWithin = 2 * time.Second
	err = d.unshare(d.uplink("eth0"))
	if !failed(err, "rolled back") {
		t.Errorf("unshared without a lease: %v", err)
	}
	if len(d.ours()) != 2 || !d.isPort("eth0") {
		t.Errorf("profiles %q, port %v", d.ours(), d.isPort("eth0"))
	}
	if _, err := d.Laptop.Reach(d.ctx, lab.EchoIPv6); err != nil {
		t.Error(err)
	}
	d.unblock()

	// Our profiles go also where somebody went back by hand.
	d.nmcli("connection", "up", eth.Connection)
	eth = d.uplink("eth0")
	if eth.Bridge != "" || len(d.ours()) != 2 {
		t.Errorf("by hand: %+v, %q", eth, d.ours())
	}
	d.check(d.unshare(eth))
	d.wantOriginal("eth0", eth.ConnectionUUID)
}

// TestShareNetworkManagerDies kills NetworkManager in the midst of it.
func TestShareNetworkManagerDies(t *testing.T) {
	t.Parallel()
	d := newDesk(t, lab.Options{}, nil)
	d.presence("eth0", true)
	eth := d.uplink("eth0")
	d.block()
	result := make(chan error, 1)
	go func() { result <- d.share(eth) }()
	d.until("it is half done", func() bool { return d.isPort("eth0") })
	d.check(d.NM.Kill(d.ctx))
	d.unblock()
	d.check(d.NM.Start(d.ctx))
	err := <-result
	if !failed(err, "NetworkManager left", "rolled back") {
		t.Errorf("NetworkManager died: %v", err)
	}
	d.wantOriginal("eth0", eth.ConnectionUUID)
	d.check(d.NM.WaitPrimary(d.ctx, "eth0"))
	d.presence("eth0", true)
	if _, err := d.Laptop.Reach(d.ctx, lab.EchoIPv4); err != nil {
		t.Error(err)
	}

	// What can't be shared.
	d.nmcli("connection", "modify", eth.Connection, "802-1x.eap", "md5", "802-1x.identity", "me", "802-1x.password", "x")
	d.r.profiles = profiles{} // nobody watches here
	eth = d.uplink("eth0")
	if want := "802.1X authenticates this interface's own address"; eth.Unshareable != want {
		t.Errorf("802.1X: %q", eth.Unshareable)
	}
	if err := d.share(eth); vnet.KindOf(err) != vnet.NotSupported {
		t.Errorf("802.1X: %v", err)
	}
	d.nmcli("connection", "add", "type", "bridge", "con-name", "Mine", "ifname", "br0", "bridge.stp", "no", "ipv4.method", "manual",
		"ipv4.addresses", "10.60.0.2/24", "ipv4.gateway", "10.60.0.1", "ipv6.method", "disabled")
	d.nmcli("device", "set", "wlan0", "managed", "yes")
	d.nmcli("connection", "add", "type", "ethernet", "con-name", "Port", "ifname", "wlan0", "master", "br0")
	d.nmcli("connection", "up", "Port")
	br := d.uplink("br0")
	before := d.nmcli("connection", "show", "Mine")
	for _, f := range []func(vnet.Uplink) error{d.share, d.unshare} {
		if err := f(br); err != nil || br.SharedFrom != "" || br.Unshareable != "" || d.ours() != nil {
			t.Errorf("a bridge of others: %v, %+v, %q", err, br, d.ours())
		}
	}
	if after := d.nmcli("connection", "show", "Mine"); after != before {
		t.Errorf("a bridge of others was changed from\n%s\nto\n%s", before, after)
	}
	if _, listed := d.find("wlan0"); listed {
		t.Error("the port of a bridge of others is listed")
	}
	if _, err := d.Laptop.Netlink().LinkByName("gwb-br0"); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Error(err)
	}
}
