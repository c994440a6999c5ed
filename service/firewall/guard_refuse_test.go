package firewall

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// errors6 counts the ICMPv6 errors that arrive in the namespace, by type and code.
func (n *namespace) errors6() func(kind, code byte) int {
	n.t.Helper()
	var conn net.PacketConn
	n.do(func() {
		var err error
		if conn, err = net.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			panic(err)
		}
	})
	n.t.Cleanup(func() { conn.Close() })
	counts := map[[2]byte]int{}
	return func(kind, code byte) int {
		b := make([]byte, 2048)
		conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		for {
			k, _, err := conn.ReadFrom(b)
			if err != nil {
				return counts[[2]byte{kind, code}]
			}
			if k >= 2 {
				counts[[2]byte{b[0], b[1]}]++
			}
		}
	}
}

// Who still speaks from a retired address learns at once that this leads nowhere.
func TestGuardRetired(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	spec := guardSpec()
	spec.Retired = []netip.Prefix{netip.MustParsePrefix("2001:db8:b::/64"), netip.MustParsePrefix("2001:db8:c0::/45")}
	apply(t, d.firewall, plan.SetGuard{Spec: spec})
	retired := []string{"2001:db8:b::10", "2001:db8:c7::10"}
	for _, address := range retired {
		d.guest.run("ip", "addr", "add", address+"/64", "dev", "eth0", "nodad")
		d.lan.run("ip", "route", "add", address+"/64", "dev", "eth0")
	}
	d.guest.run("ip", "addr", "add", "2001:db8:c8::10/64", "dev", "eth0", "nodad") // beside the second
	d.lan.run("ip", "route", "add", "2001:db8:c8::/64", "dev", "eth0")
	d.lan.serve("[::]:7")
	both(t, d.guest, "[2001:db8:a::1]:7", "2001:db8:a::10", "2001:db8:a::10")
	check{d.guest, "tcp", "2001:db8:c8::10", "[2001:db8:a::1]:7", "2001:db8:c8::10"}.run(t)

	told := d.guest.errors6()
	for i, address := range retired {
		check{d.guest, "tcp", address, "[2001:db8:a::1]:7", refused}.run(t)
		check{d.guest, "udp", address, "[2001:db8:a::1]:7", prohibited}.run(t)
		eventually(t, "code 5 for UDP", func() bool { return told(1, codePolicyFail) == 2*i+1 })
		// An echo, too.
		if out, err := d.guest.try("ping", "-6", "-c1", "-W5", "-I", address, "2001:db8:a::1"); err == nil {
			t.Errorf("an echo from %s: %s", address, out)
		}
		eventually(t, "code 5 for an echo", func() bool { return told(1, codePolicyFail) == 2*i+2 })
	}
	if got := d.host.dropped("default-refused"); got["retired: TCP"] != 2 || got["retired"] != 4 {
		t.Errorf("answered: %v", got)
	}

	// No answer to errors, neighbour discovery, multicast, fragments and what isn't whole.
	from, far := d.host.station(inner), d.lan.station("eth0")
	silentOnes := []struct {
		name, rule string
		frame      []byte
	}{
		{"error", "retired: error", ether6(lanMAC, packet(retired[0], "2001:db8:a::1", icmp6(1, make([]byte, 48)...)))},
		{"solicitation", "retired: neighbour discovery", ether6(allNodes, packet(retired[0], "ff02::1:ff00:1", icmp6(135, make([]byte, 16)...)))},
		{"advertisement", "retired: neighbour discovery", ether6(lanMAC, packet(retired[0], "fe80::1", icmp6(136, make([]byte, 16)...)))},
		{"router advertisement", "retired: neighbour discovery", ether6(allNodes, packet(retired[0], all, advertisement()))},
		{"multicast", "retired: multicast", ether6("33:33:00:00:00:fb", packet(retired[0], "ff02::fb", udp6(5353, 5353)))},
		{"second fragment", "retired", ether6(lanMAC, packet(retired[0], "2001:db8:a::1", fragmentOf(unix.IPPROTO_UDP, 16, false), raw(0, make([]byte, 16)...)))},
		{"reset", "retired: TCP", ether6(lanMAC, packet(retired[0], "2001:db8:a::1", tcp6(4)))},
	}
	before := d.host.dropped("default-refused")
	want := map[string]int{}
	for i, f := range silentOnes {
		from.send(i, f.frame)
		want[f.rule]++
	}
	for rule, count := range want {
		eventually(t, rule+" counts", func() bool { return d.host.dropped("default-refused")[rule]-before[rule] == count })
	}
	from.send(100, ether6(lanMAC, packet(retired[0], "2001:db8:a::1", raw(unix.IPPROTO_ESP, make([]byte, 24)...))))
	eventually(t, "an answer to the last", func() bool { return from.answered() > 0 })
	if got := from.answered(); got != 1 {
		t.Errorf("%d answers, want one to the last", got)
	}
	for i, f := range silentOnes {
		if far.count(i) > 0 {
			t.Errorf("%s has passed", f.name)
		}
	}
}

// Where the kernel can't answer, what is refused is dropped.
func TestGuardRetiredWithoutAnswer(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	spec := guardSpec()
	spec.Retired = []netip.Prefix{netip.MustParsePrefix("2001:db8:a::/64")}
	must(t, d.firewall.change([]ownTable{guardTable}, func(b *batch, there []found) error {
		return there[0].putGuard(b, spec, guardChains(spec, nil, false))
	}))
	if got := d.guarded(t); got != spec.Digest() {
		t.Errorf("observed %q, want %q", got, spec.Digest())
	}
	d.lan.serve("[::]:7")
	// Neighbour discovery from a retired address is dropped, too.
	d.guest.run("ip", "neighbour", "replace", "2001:db8:a::1", "lladdr", lanMAC, "dev", "eth0")
	both(t, d.guest, "[2001:db8:a::1]:7", silence, silence)
	eventually(t, "TCP is counted", func() bool { return d.host.dropped("default-refused")["retired: TCP"] > 0 })
}

// The host's services stay closed to guests that may not have them, by whichever address.
func TestGuardHost(t *testing.T) {
	t.Parallel()
	d := newDock(t, "iptables-nft")
	spec := guardSpec()
	spec.Hosts = []string{hostMAC}
	apply(t, d.firewall, plan.SetGuard{Spec: spec})
	for _, n := range []*namespace{d.guest, d.lan, d.host} {
		n.serve("[::]:7")
	}
	if !d.guest.pings("2001:db8:a::2") || !d.guest.pings("2001:db8:a::2", "-s", "5000") {
		t.Error("the host doesn't answer echoes")
	}
	both(t, d.guest, "[2001:db8:a::2]:7", silence, silence)
	both(t, d.guest, "[2001:db8:a::1]:7", "2001:db8:a::10", "2001:db8:a::10")
	// The host opens connections to guests; of UDP it gets no answer.
	check{d.host, "tcp", "", "[2001:db8:a::10]:7", "2001:db8:a::2"}.run(t)
	check{d.host, "udp", "", "[2001:db8:a::10]:7", silence}.run(t)

	from := d.host.station(inner)
	self, group := "2001:db8:a::10", "33:33:00:00:00:01"
	for i, f := range []struct {
		name, rule string
		frame      []byte
	}{
		{"SYN", "to the host: new connection", ether6(hostMAC, packet(self, "2001:db8:a::2", tcp6(2)))},
		{"SYN, PSH, URG", "to the host: new connection", ether6(hostMAC, packet(self, "2001:db8:a::2", tcp6(0x2a)))},
		{"SYN, FIN", "to the host: new connection", ether6(hostMAC, packet(self, "2001:db8:a::2", tcp6(3)))},
		{"SYN behind options", "to the host: new connection", ether6(hostMAC, packet(self, "2001:db8:a::2", dstOpts(), tcp6(2)))},
		{"SYN in a fragment", "to the host: fragment of TCP", ether6(hostMAC, packet(self, "2001:db8:a::2", fragment(0, false), tcp6(2)))},
		{"second fragment of TCP", "to the host: fragment of TCP",
			ether6(hostMAC, packet(self, "2001:db8:a::2", fragmentOf(unix.IPPROTO_TCP, 16, false), raw(0, make([]byte, 16)...)))},
		{"ACK in a fragment", "to the host: fragment of TCP", ether6(hostMAC, packet(self, "2001:db8:a::2", fragment(0, false), tcp6(0x10)))},
		{"UDP", "to the host: other than TCP, ICMPv6", ether6(hostMAC, packet(self, "2001:db8:a::2", udp6(1, 7)))},
		{"second fragment of UDP", "to the host: other than TCP, ICMPv6",
			ether6(hostMAC, packet(self, "2001:db8:a::2", fragmentOf(unix.IPPROTO_UDP, 16, false), raw(0, make([]byte, 16)...)))},
		{"SCTP", "to the host: other than TCP, ICMPv6", ether6(hostMAC, packet(self, "2001:db8:a::2", raw(unix.IPPROTO_SCTP, make([]byte, 12)...)))},
		{"UDP by a group address", "to the host by a group address", ether6(group, packet(self, "2001:db8:a::2", udp6(1, 7)))},
		{"UDP by broadcast", "to the host by a group address", ether6("ff:ff:ff:ff:ff:ff", packet(self, "2001:db8:a::2", udp6(1, 7)))},
		{"advertisement", "router advertisement", ether6(hostMAC, packet(local, "fe80::1", advertisement()))},
		{"to the outer end", "to the link's own end", ether6("02:22:22:22:22:02", packet(self, "2001:db8:a::2", tcp6(2)))},
	} {
		before := d.host.dropped("default-outer")
		from.send(i, f.frame)
		var after map[string]int
		for ends := patienceEnds(); cmp.Equal(after, before) || after == nil; after = d.host.dropped("default-outer") {
			if ends() {
				t.Fatalf("%s isn't dropped", f.name)
			}
		}
		before[f.rule]++
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f.name, diff)
		}
	}
}
