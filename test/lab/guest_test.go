package lab

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// natBridge makes the laptop serve guests in the plainest way: a bridge, dnsmasq, masquerade.
func natBridge(t *testing.T, l *Lab, bridge string, address netip.Prefix) *process {
	t.Helper()
	ctx := testContext(t)
	script := fmt.Sprintf(`
ip link add %[1]s type bridge && ip addr add %[2]s dev %[1]s && ip link set %[1]s up &&
sysctl -qw net.ipv4.ip_forward=1 && iptables -t nat -A POSTROUTING -s %[2]s ! -o %[1]s -j MASQUERADE`, bridge, address)
	if _, err := l.Laptop.Run(ctx, "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	return serveDHCP(t, l, bridge, address)
}

func serveDHCP(t *testing.T, l *Lab, bridge string, address netip.Prefix) *process {
	t.Helper()
	a := address.Addr().As4()
	p, err := l.spawn(l.Laptop, "guest-dhcp", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--no-hosts", "--no-ping",
		"--dhcp-authoritative", "--pid-file=", "--interface="+bridge, "--except-interface=lo", "--bind-interfaces",
		"--no-resolv", "--server="+l.Site("b").DNS().Addr().String(), "--dhcp-leasefile="+l.Dir()+"/guest.leases",
		fmt.Sprintf("--dhcp-range=%d.%d.%d.100,%d.%d.%d.200,1h", a[0], a[1], a[2], a[0], a[1], a[2]))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	err = poll(ctx, func() (bool, error) {
		if err := p.alive(); err != nil {
			return false, err
		}
		_, err := l.Laptop.Query(ctx, netip.AddrPortFrom(address.Addr(), 53), "site.example", TypeA)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGuest(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{NoPolkit: true})
	ctx := testContext(t)
	b := l.Site("b")
	if _, _, err := b.WaitUplink(ctx); err != nil {
		t.Fatal(err)
	}
	subnet := netip.MustParsePrefix("10.99.0.1/24")
	server := natBridge(t, l, "br0", subnet)
	g, err := l.AddGuest(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AddGuest(ctx, "one"); err == nil {
		t.Error("a second guest of the same name")
	}
	if err := g.DHCP(ctx); err != nil {
		t.Fatal(err)
	}
	link, err := l.Laptop.Netlink().LinkByName(g.Port)
	if err != nil || link.Attrs().MasterIndex != 0 || link.Attrs().OperState == netlink.OperUp {
		t.Fatalf("a new guest's port is %+v, %v, want down and in no bridge", link, err)
	}
	uplink, err := l.Laptop.Capture(ctx, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Now()
	if err := g.AttachTo("br0"); err != nil {
		t.Fatal(err)
	}
	lease, err := g.WaitLease(ctx, subnet)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("lease after", time.Since(t0), lease)
	if lease.Router != subnet.Addr() || len(lease.DNS) != 1 || lease.DNS[0] != subnet.Addr() || lease.Server != subnet.Addr() {
		t.Errorf("lease is %+v, want %v as router and DNS server", lease, subnet.Addr())
	}
	if got, err := g.WaitAddress(ctx, GuestInterface, subnet); err != nil || got != lease.Address.Addr() {
		t.Errorf("address is %v, %v, want the lease's %v", got, err, lease.Address)
	}
	if out, err := g.Run(ctx, "cat", "/etc/resolv.conf"); err != nil || out != "nameserver 10.99.0.1\n" {
		t.Errorf("guest's resolv.conf is %q, %v", out, err)
	}
	if _, err := g.WaitIPv6(ctx, netip.MustParsePrefix("fe80::/64")); err != nil {
		t.Error(err)
	}
	seen, err := g.Reach(ctx, EchoIPv4)
	if err != nil || !b.Options.IPv4.Contains(seen.Addr()) {
		t.Fatalf("the internet sees the guest as %v, %v, want the laptop at site b", seen, err)
	}
	probeGuest(ctx, t, g, netip.AddrPortFrom(subnet.Addr(), 53))
	if n := uplink.Count(SrcIn(subnet.Masked())); n != 0 {
		t.Errorf("%d frames of the guest left the laptop without NAT", n)
	}
	if n := uplink.Count(SrcIn(b.Options.IPv4), func(f Frame) bool { return f.Outgoing && f.Protocol() == 17 }); n < 10 {
		t.Errorf("capture saw only %d of the guest's datagrams", n)
	}
	if err := uplink.Close(); err != nil {
		t.Error(err)
	}
	if sp, err := b.Spoofed(ctx); err != nil || sp.IPv4 != 0 {
		t.Errorf("NAT leaks: %+v, %v", sp, err)
	}

	// The subnet changes under the guest; a flap of the carrier makes it ask, and the server's NAK makes it drop the old.
	if err := server.stop(ctx, 15); err != nil {
		t.Fatal(err)
	}
	if err := g.SetCarrier(false); err != nil {
		t.Fatal(err)
	}
	moved := netip.MustParsePrefix("10.98.0.1/24")
	if _, err := l.Laptop.Run(ctx, "sh", "-c", "ip addr flush dev br0 scope global && ip addr add 10.98.0.1/24 dev br0"); err != nil {
		t.Fatal(err)
	}
	serveDHCP(t, l, "br0", moved)
	t0 = time.Now()
	if err := g.SetCarrier(true); err != nil {
		t.Fatal(err)
	}
	if lease, err = g.WaitLease(ctx, moved); err != nil {
		t.Fatal(err)
	}
	t.Log("moved after", time.Since(t0), lease)
	if err := g.Renew(ctx); err != nil {
		t.Error(err)
	}
	pids := processesInNamed(t, g.Namespace)
	if len(pids) < 2 { // dhcpcd separates its privileges
		t.Fatalf("only %v run on the guest", pids)
	}
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	assertGone(t, pids)
	if _, err := l.Laptop.Netlink().LinkByName(g.Port); err == nil {
		t.Error("removing the guest left its port")
	}
}

// probeGuest runs the three kinds of probe over a NAT and a short cut of the line.
func probeGuest(ctx context.Context, t *testing.T, g *Guest, dns netip.AddrPort) {
	t.Helper()
	flow, err := g.ProbeFlow(ctx, EchoIPv4, ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := g.ProbeSockets(ctx, EchoIPv4, ProbeOptions{Ports: 50})
	if err != nil {
		t.Fatal(err)
	}
	names, err := g.ProbeDNS(ctx, dns, "site.example", ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	probes := map[string]*Probe{"flow": flow, "sockets": sockets, "dns": names}
	for name, p := range probes {
		if _, err := p.WaitSuccess(ctx, time.Now()); err != nil {
			t.Fatal(name, err)
		}
	}
	cut := time.Now()
	if _, err := g.lab.Laptop.Run(ctx, "iptables", "-I", "FORWARD", "-s", "10.99.0.0/24", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	cutDone := time.Now()
	hold := time.NewTimer(200 * time.Millisecond) // the length of the outage, not a wait for anything
	<-hold.C
	mend := time.Now()
	if _, err := g.lab.Laptop.Run(ctx, "iptables", "-D", "FORWARD", "1"); err != nil {
		t.Fatal(err)
	}
	mended := time.Now()
	for name, p := range probes {
		if _, err := p.WaitSuccess(ctx, mended); err != nil {
			t.Fatal(name, err)
		}
		r := p.Finish()
		t.Log(name, r)
		if name == "dns" { // answered by the laptop, which was not cut off
			if a, ok := r.FirstSuccess(cut); !ok || (len(a.Answer.Texts) == 0 && len(a.Answer.Addrs) == 0) {
				t.Errorf("dns answered %+v", a)
			}
			continue
		}
		got := r.Blackout(cut)
		if least := mend.Sub(cutDone) - 50*time.Millisecond; got < least {
			t.Errorf("%s: blackout of %v, the line was cut for at least %v", name, got, least)
		}
		if settled, ok := r.Settled(cut); !ok || settled < got {
			t.Errorf("%s: settled after %v, %t, with a blackout of %v", name, settled, ok, got)
		}
		if o := r.Outages(); len(o) == 0 || o[0].From.Before(cut) || o[0].Lost < 2 {
			t.Errorf("%s: outages %+v", name, o)
		}
	}
}
