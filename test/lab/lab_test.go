package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUp(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{})
	ctx := testContext(t)
	for _, s := range l.Sites {
		v4, v6, err := s.WaitUplink(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(s.Name, v4, v6)
	}
	if got, err := l.NM.Primary(ctx); err != nil || got != "eth0" {
		t.Errorf("primary is %q, %v, want eth0", got, err)
	}
	for _, echo := range []netip.AddrPort{EchoIPv4, EchoIPv6} {
		seen, err := l.Laptop.Reach(ctx, echo)
		if err != nil {
			t.Fatal(err)
		}
		if b := l.Site("b").Options; !b.IPv4.Contains(seen.Addr()) && !b.IPv6.Contains(seen.Addr()) {
			t.Errorf("the internet sees %v, not an address of site b", seen)
		}
		if !containsPeer(l.Internet.Peers(), seen) {
			t.Errorf("%v is not among the peers %v", seen, l.Internet.Peers())
		}
		conn, err := l.Laptop.DialTCP(ctx, echo)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := exchange(ctx, conn, []byte("hello"), reachTimeout)
		if err != nil || string(reply) != "hello" {
			t.Errorf("TCP echo of %v: %q, %v", echo, reply, err)
		}
		conn.Close()
	}
	out, err := l.NM.Cli(ctx, "-t", "-f", "DEVICE,STATE", "device")
	if err != nil || !strings.Contains(out, "wlan0:connected\n") {
		t.Errorf("nmcli says %q, %v", out, err)
	}
	if out, err := l.Laptop.Run(ctx, "ls", "/sys/class/net"); err != nil || strings.TrimSpace(out) != "eth0\nlo\nwlan0" {
		t.Errorf("/sys shows %q, %v, want the laptop's interfaces", out, err)
	}
	if _, err := l.Laptop.Run(ctx, "sh", "-c", "echo 1 >/sys/class/net/lo/ifalias"); err == nil {
		t.Error("/sys is writable")
	}
}

func containsPeer(peers []Peer, addr netip.AddrPort) bool {
	for _, p := range peers {
		if p.Addr == addr && p.Packets > 0 {
			return true
		}
	}
	return false
}

func TestDNSDiffersBySite(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{NoPolkit: true})
	ctx := testContext(t)
	for i, s := range l.Sites {
		if _, _, err := s.WaitUplink(ctx); err != nil {
			t.Fatal(err)
		}
		a, err := l.Laptop.Query(ctx, s.DNS(), "site.example", TypeTXT)
		if err != nil || len(a.Texts) != 1 || a.Texts[0] != s.Name {
			t.Errorf("TXT site.example of site %s: %v, %v", s.Name, a, err)
		}
		want := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		addrs, err := l.Laptop.Resolver(s.DNS()).LookupNetIP(ctx, "ip4", "site.example.")
		if err != nil || len(addrs) != 1 || addrs[0].Unmap() != want {
			t.Errorf("A site.example of site %s: %v, %v, want %v", s.Name, addrs, err, want)
		}
		if a, err = l.Laptop.Query(ctx, s.DNS(), "internet.example", TypeAAAA); err != nil || len(a.Addrs) != 1 || a.Addrs[0] != InternetIPv6 {
			t.Errorf("AAAA internet.example of site %s: %v, %v", s.Name, a, err)
		}
		if a, err = l.Laptop.Query(ctx, s.DNS(), "absent.example", TypeA); err != nil || a.RCode != 3 {
			t.Errorf("absent.example of site %s: %v, %v, want no such name", s.Name, a, err)
		}
		queries, err := s.Queries()
		if err != nil || len(queries) != 4 || queries[1].Type != "A" || queries[1].Name != "site.example" || !s.Options.IPv4.Contains(queries[1].From) {
			t.Errorf("site %s logged %v, %v", s.Name, queries, err)
		}
	}
}

func TestIngressFilterCounts(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{NoPolkit: true})
	ctx := testContext(t)
	b := l.Site("b")
	if _, _, err := b.WaitUplink(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := b.Spoofed(ctx)
	if err != nil || before.IPv4 != 0 || len(before.Sources) != 0 {
		t.Fatalf("honest packets counted as spoofed: %+v, %v", before, err)
	}
	for _, c := range []struct{ addr, echo string }{{"172.31.0.1/32", EchoIPv4.String()}, {"fd00:67::1/128", EchoIPv6.String()}} {
		wrong := netip.MustParsePrefix(c.addr)
		if err := l.Laptop.addAddress("lo", wrong); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Laptop.DialUDP(netip.AddrPortFrom(wrong.Addr(), 0), netip.MustParseAddrPort(c.echo))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = poll(ctx, func() (bool, error) {
			if _, err := conn.Write(encodeEcho(0)); err != nil {
				return false, err
			}
			now, err := b.Spoofed(ctx)
			return now.Sources[wrong.Addr()] > 0, err
		})
		if err != nil {
			t.Errorf("spoofed packets from %v not counted: %v", wrong, err)
		}
	}
	if now, err := b.Spoofed(ctx); err != nil || now.IPv4 == 0 || now.IPv6 == 0 {
		t.Errorf("totals: %+v, %v", now, err)
	}
	for _, p := range l.Internet.Peers() {
		t.Errorf("a spoofed packet reached the internet: %+v", p)
	}
}

func TestActivation(t *testing.T) {
	t.Parallel()
	policy := t.TempDir()
	conf := `<busconfig><policy user="root"><allow own="` + daemonName + `"/></policy><policy context="default"><allow send_destination="` + daemonName + `"/></policy></busconfig>`
	for name, text := range map[string]string{"gangway.conf": conf, "networkmanager.conf": "[keyfile]\n"} {
		if err := os.WriteFile(filepath.Join(policy, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := Start(t, Options{NoNetworkManager: true, BusPolicyDir: policy, Gangwayd: os.Args[0], GangwaydArgs: []string{argService}, GangwaydEnv: []string{"LAB_TEST=it's set"}})
	ctx := testContext(t)
	if pid, err := l.Daemon().PID(ctx); err == nil {
		t.Fatalf("the service runs as %d before anybody asked", pid)
	}
	conn, err := l.BusAs(65534, 65534)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var net, mnt string
	var environ []string
	ask := func() {
		t.Helper()
		if err := conn.Object(daemonName, "/").CallWithContext(ctx, daemonName+".Namespaces", 0).Store(&net, &mnt, &environ); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, l.Laptop.Namespace), &st); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", st.Ino); net != want {
		t.Errorf("service runs in %s, want the laptop's %s", net, want)
	}
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || mnt == own {
		t.Errorf("service runs in our mount namespace %s, %v", mnt, err)
	}
	for _, want := range []string{"LAB_TEST=it's set", "DBUS_SYSTEM_BUS_ADDRESS=" + l.BusAddress(), "RUNTIME_DIRECTORY=/run/gangway", "STATE_DIRECTORY=" + l.Dir() + "/state/gangway", "CONFIGURATION_DIRECTORY=" + l.Dir() + "/etc/gangway"} {
		// The bus appends its guid to its address.
		if !slices.ContainsFunc(environ, func(e string) bool { return e == want || strings.HasPrefix(e, want+",guid=") }) {
			t.Errorf("environment lacks %q", want)
		}
	}
	first, err := l.Daemon().PID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Daemon().Kill(ctx, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.Daemon().Activate(ctx); err != nil {
		t.Fatal(err)
	}
	if second, err := l.Daemon().PID(ctx); err != nil || second == first {
		t.Errorf("after SIGKILL and activation: %d, %v, was %d", second, err, first)
	}
	ask()
	if log, err := l.Daemon().Log(); err != nil || log != "service starts\nservice starts\n" {
		t.Errorf("log is %q, %v", log, err)
	}
	var uid uint32
	if err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, conn.Names()[0]).Store(&uid); err != nil || uid != 65534 {
		t.Errorf("the bus sees user %d, %v, want 65534", uid, err)
	}
	// Default deny: nobody but root may own the name.
	if reply, err := conn.RequestName("org.gangway.Other1", 0); err == nil {
		t.Errorf("an unprivileged peer owns a name: %v", reply)
	}
}
