package link

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A guest that advertises itself as a router, from before the bridge comes up: the host takes
// nothing of it, even if it would on any other interface (forwarding on, accept_ra 2). Needs radvd.
func TestBridgeTakesNothingFromGuests(t *testing.T) {
	if !isolated(t) {
		return
	}
	for key, value := range map[string]string{"all/forwarding": "1", "default/accept_ra": "2", "default/accept_redirects": "1", "default/addr_gen_mode": "1"} {
		set(t, "net/ipv6/conf/"+key, value)
	}
	guest := newGuest(t)
	k := newKernel(t)
	for _, name := range []string{"gwta", "gwtb"} {
		ip(t, "link", "add", name, "type", "veth", "peer", "name", name, "netns", strconv.Itoa(guest.pid))
		guest.up(t, name)
	}
	// The second bridge is anybody's: it shows that the advertisements are good.
	ip(t, "link", "add", "gwtu", "type", "bridge")
	set(t, "net/ipv6/conf/gwtu/addr_gen_mode", "0")
	ip(t, "link", "set", "gwtb", "master", "gwtu", "up")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwta", Index: findLink(t, observe(t, k), "gwta").Index})
	for _, key := range []string{"accept_ra", "autoconf", "accept_redirects", "forwarding", "addr_gen_mode",
		"accept_dad", "dad_transmits", "router_solicitation_delay"} {
		if got := sysctl(t, "net/ipv6/conf/gwt0/"+key); got != "0" {
			t.Errorf("%s is %s", key, got)
		}
	}
	frame := advertisement(t, guest, "gwta")
	done := make(chan struct{})
	var busy sync.WaitGroup
	defer func() { close(done); busy.Wait() }()
	for _, name := range []string{"gwta", "gwtb"} {
		l, err := guest.handle.LinkByName(name)
		must(t, err)
		fd := guest.packetSocket(t)
		busy.Go(func() {
			defer unix.Close(fd)
			for open(done) {
				_ = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index})
			}
		})
	}
	eventually(t, "advertisements at the ports", func() bool {
		have := observe(t, k)
		return findLink(t, have, "gwta").RxBytes > 0 && findLink(t, have, "gwtb").RxBytes > 0
	})
	apply(t, k, plan.SetLinkUp{Name: "gwt0"})
	ip(t, "link", "set", "gwtu", "up")
	eventually(t, "the other bridge's address and default route", func() bool {
		return slices.ContainsFunc(addresses(t, k, "gwtu"), advertised.Contains) && defaultRoutes(t, "gwtu") > 0
	})
	before := findLink(t, observe(t, k), "gwt0").RxBytes
	eventually(t, "more of them at our bridge", func() bool { return findLink(t, observe(t, k), "gwt0").RxBytes > before+100*uint64(len(frame)) })
	if all := addresses(t, k, "gwt0"); len(all) != 1 || !all[0].IsLinkLocalUnicast() {
		t.Errorf("the bridge's addresses: %s", all)
	}
	if n := defaultRoutes(t, "gwt0"); n != 0 {
		t.Errorf("%d default routes into guests", n)
	}
}

var advertised = netip.MustParsePrefix("2001:db8:7::/64")

func addresses(t *testing.T, k *Kernel, name string) (all []netip.Addr) {
	have := observe(t, k)
	index := findLink(t, have, name).Index
	for _, a := range have.Addresses {
		if a.Link == index {
			all = append(all, a.Prefix.Addr())
		}
	}
	return all
}

func defaultRoutes(t *testing.T, name string) (n int) {
	l, err := netlink.LinkByName(name)
	must(t, err)
	routes, err := netlink.RouteList(l, unix.AF_INET6)
	must(t, err)
	for _, r := range routes {
		if r.Dst == nil || r.Dst.String() == "::/0" {
			n++
		}
	}
	return n
}

// advertisement has radvd send one by the guest's interface, and catches it at its other end,
// which has the same name.
func advertisement(t *testing.T, guest *guest, name string) []byte {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.ETH_P_ALL<<8)
	must(t, err)
	defer unix.Close(fd)
	l, err := netlink.LinkByName(name)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: unix.ETH_P_ALL << 8}))
	config := filepath.Join(t.TempDir(), "radvd.conf")
	must(t, os.WriteFile(config, []byte("interface "+name+" { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix "+advertised.String()+" {}; };\n"), 0o600))
	radvd := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(guest.pid)+"/ns/net", "radvd", "-n", "-m", "stderr", "-C", config,
		"-p", filepath.Join(filepath.Dir(config), "pid"))
	radvd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, radvd.Start())
	defer func() {
		_ = radvd.Process.Signal(syscall.SIGTERM) // it has a child, which it ends
		_ = radvd.Wait()
	}()
	var frame []byte
	buf := make([]byte, 2048)
	eventually(t, "radvd's advertisement", func() bool {
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return false
			}
			// Ethernet's type, IPv6's next header, ICMPv6's type: a router advertisement (RFC 4861 4.2).
			if n > 54 && buf[12] == 0x86 && buf[13] == 0xdd && buf[20] == unix.IPPROTO_ICMPV6 && buf[54] == 134 {
				frame = slices.Clone(buf[:n])
				return true
			}
		}
	})
	return frame
}
