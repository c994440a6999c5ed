package dnsmasq

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
)

func TestServesAddressesAndNames(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, "02:00:00:00:00:01")
	told := l.dhcp("guest", "-x hostname:box")
	want := map[string]string{"router": "192.168.231.1", "dns": "192.168.231.1", "domain": "default.internal",
		"mtu": "1400", "lease": "3600", "subnet": "255.255.255.0", "serverid": "192.168.231.1", "broadcast": "192.168.231.255"}
	for key, value := range want {
		if told[key] != value {
			t.Errorf("guest was told %s=%q, want %q", key, told[key], value)
		}
	}
	address := told["ip"]
	_, leases := l.observe()
	if len(leases["default"]) != 1 {
		t.Fatalf("leases: %v", leases)
	}
	got := leases["default"][0]
	if got.Address.String() != address || got.MAC != "02:00:00:00:00:01" || got.Hostname != "box" ||
		time.Until(got.Expires) > time.Hour || time.Until(got.Expires) < 50*time.Minute {
		t.Errorf("lease %+v", got)
	}
	reverse := func(a string) string { return "@192.168.231.1 -x " + a }
	l.wantAnswer("guest", "@192.168.231.1 box.default.internal", "NOERROR", address)
	l.wantAnswer("guest", "@192.168.231.1 box", "NOERROR", address)
	l.wantAnswer("guest", reverse(address), "NOERROR", "box.default.internal.")
	l.wantAnswer("guest", "@192.168.231.1 gateway.default.internal", "NOERROR", "192.168.231.1")
	l.wantAnswer("guest", "@192.168.231.1 +tcp gateway", "NOERROR", "192.168.231.1")
	l.wantAnswer("guest", reverse("192.168.231.1"), "NOERROR", "gateway.default.internal.")
	l.wantAnswer("guest", reverse("192.168.231.77"), "NXDOMAIN", "")
	l.wantAnswer("guest", "@192.168.231.1 nobody.default.internal", "NXDOMAIN", "")
	l.wantAnswer("", "@192.168.231.1 box.default.internal", "NOERROR", address) // the host's own query
}

func TestIsolatedGuestHasNoRouter(t *testing.T) {
	l := newLab(t)
	spec := l.network("alone", "10.20.30.1/28")
	spec.Router, spec.MTU = false, 0
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, "02:00:00:00:00:01")
	told := l.dhcp("guest", "")
	if told["router"] != "" || told["mtu"] != "" || told["dns"] != "10.20.30.1" {
		t.Errorf("router %q, mtu %q, dns %q", told["router"], told["mtu"], told["dns"])
	}
	l.wantAnswer("guest", "@10.20.30.1 -x 10.20.30.1", "NOERROR", "gateway.alone.internal.")
}

func TestWithoutDHCPOnlyNames(t *testing.T) {
	l := newLab(t)
	spec := l.network("names", "10.20.30.1/24")
	spec.First, spec.Last = netip.Addr{}, netip.Addr{}
	l.apply(plan.StartServer{Spec: spec})
	l.wantAnswer("", "@10.20.30.1 gateway.names.internal", "NOERROR", "10.20.30.1")
	if out := sh(t, "ss -Hlnu sport = 67"); out != "" {
		t.Errorf("somebody listens for DHCP: %s", out)
	}
}

func TestAnswersOnlyOnItsBridge(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	l.namespace("site", "uplink")
	sh(t, `ip addr add 10.1.0.1/24 dev uplink; ip -n site addr add 10.1.0.2/24 dev eth0
ip -n site route add 192.168.231.0/24 via 10.1.0.1; ip netns exec site ping -c1 -W5 192.168.231.1`)
	for _, query := range []string{"@192.168.231.1 gateway", "@192.168.231.1 +tcp gateway", "@10.1.0.1 gateway", "@10.1.0.1 +tcp gateway"} {
		l.wantAnswer("site", query, "none", "")
	}
}

func TestRunsUnprivilegedWithoutOurEnvironment(t *testing.T) {
	l := newLab(t)
	t.Setenv("LAB_SECRET", "x")
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")})
	s := l.one()
	uid, err := realUser(s.PID)
	if err != nil || uid == 0 {
		t.Errorf("runs as %d (%v)", uid, err)
	}
	environment := sh(t, "tr '\\0' '\\n' </proc/%d/environ", s.PID)
	if environment != "LC_ALL=C\nDBUS_SYSTEM_BUS_ADDRESS="+labBus {
		t.Errorf("environment:\n%s", environment)
	}
	// CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13 and no other.
	if caps := sh(t, "awk '/^CapEff/{print $2}' /proc/%d/status", s.PID); caps != "0000000000003400" {
		t.Errorf("capabilities %s", caps)
	}
}

func TestTwoNetworksAtOnce(t *testing.T) {
	l := newLab(t)
	a, b := l.network("a", "192.168.1.1/24"), l.network("b-2_x", "192.168.2.1/24")
	l.apply(plan.StartServer{Spec: a}, plan.StartServer{Spec: b})
	servers, _ := l.observe()
	if len(servers) != 2 || servers[0].Digest != a.Digest() || servers[1].Digest != b.Digest() {
		t.Fatalf("servers %v", servers)
	}
	l.guest("ga", a, "02:00:00:00:00:0a")
	l.guest("gb", b, "02:00:00:00:00:0b")
	if ip := l.dhcp("ga", "")["ip"]; !strings.HasPrefix(ip, "192.168.1.") {
		t.Errorf("a's guest has %s", ip)
	}
	if ip := l.dhcp("gb", "")["ip"]; !strings.HasPrefix(ip, "192.168.2.") {
		t.Errorf("b's guest has %s", ip)
	}
	l.apply(plan.StopServer{Network: "a"})
	l.wantAnswer("", "@192.168.2.1 gateway.b-2-x.internal", "NOERROR", "192.168.2.1")
}

func TestStartIsIdempotentAndStopLeavesOnlyLeases(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	first := l.one()
	l.apply(plan.StartServer{Spec: spec})
	if diff := cmp.Diff(first, l.one()); diff != "" {
		t.Errorf("a second start changed something:\n%s", diff)
	}
	l.guest("guest", spec, "02:00:00:00:00:01")
	address := l.dhcp("guest", "-x hostname:box")["ip"]
	spec.MTU = 1300
	l.apply(plan.StartServer{Spec: spec})
	if s := l.one(); s.PID == first.PID || s.Digest != spec.Digest() {
		t.Errorf("after a change: %+v, before %+v", s, first)
	}
	l.wantAnswer("guest", "@192.168.231.1 box", "NOERROR", address) // the lease was kept
	l.apply(plan.StopServer{Network: "default"}, plan.StopServer{Network: "default"})
	servers, leases := l.observe()
	if len(servers) != 0 || len(leases["default"]) != 1 {
		t.Errorf("after stop: servers %v, leases %v", servers, leases)
	}
	if _, err := os.Stat(l.room.files("default").dir); !os.IsNotExist(err) {
		t.Errorf("runtime files are still there: %v", err)
	}
	l.apply(plan.ForgetLeases{Network: "default"}, plan.ForgetLeases{Network: "default"})
	if _, leases := l.observe(); len(leases) != 0 {
		t.Errorf("leases were not forgotten: %v", leases)
	}
}

func TestRenumberingForgetsOldSubnet(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, "02:00:00:00:00:01")
	old := l.dhcp("guest", "-x hostname:box")["ip"]
	sh(t, "ip addr flush dev %[1]s; ip addr add 192.168.99.1/24 brd + dev %[1]s", spec.Bridge)
	moved := testSpec("default", "192.168.99.1/24")
	l.apply(plan.StartServer{Spec: moved})
	// The guest isn't in its server's lease file, but known until it is back.
	if _, leases := l.observe(); len(leases["default"]) != 1 || leases["default"][0].Address.String() != old {
		t.Errorf("former leases: %v", leases)
	}
	// It asks for its old address first, is refused at once and gets another.
	if ip := l.dhcp("guest", "-x hostname:box -r "+old)["ip"]; !strings.HasPrefix(ip, "192.168.99.") {
		t.Errorf("guest has %s", ip)
	}
	if _, leases := l.observe(); len(leases["default"]) != 1 || leases["default"][0].Address.String() == old {
		t.Errorf("leases after its return: %v", leases)
	}
}

func TestFailedStartSaysWhatDnsmasqSays(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	fail := func(spec plan.ServerSpec, want string) {
		t.Helper()
		err := l.room.Apply(context.Background(), []plan.Op{plan.StartServer{Spec: spec}})[0].Err
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `cannot start dnsmasq of "default": `) {
			t.Errorf("error %v, want %q", err, want)
		}
		if servers, _ := l.observe(); len(servers) != 0 {
			t.Errorf("something runs after a failed start: %v", servers)
		}
		if _, err := os.Stat(l.room.files("default").dir); !os.IsNotExist(err) {
			t.Errorf("a failed start left files: %v", err)
		}
	}
	absent := spec
	absent.Bridge = "absent"
	fail(absent, "does not listen at 192.168.231.1")
	// Somebody has the lease file's place.
	lease := l.room.files("default").leases
	sh(t, "rm -f %[1]s; ln -s /absent/x %[1]s", lease)
	fail(spec, "cannot open or create lease file")
	sh(t, "rm %s", lease)
	// Somebody else has the port.
	socket, err := net.ListenPacket("udp4", "192.168.231.1:53")
	if err != nil {
		t.Fatal(err)
	}
	fail(spec, "failed to create listening socket for 192.168.231.1: Address already in use")
	socket.Close()
	l.apply(plan.StartServer{Spec: spec})
	l.room.program = "/nonexistent/dnsmasq"
	l.apply(plan.StopServer{Network: "default"})
	fail(spec, "no such file")
	l.room.program = findProgram("")
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.options.BusAddress = "unix:path=/run/no-such-bus"
	l.room = l.newRoom()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err := l.room.Apply(ctx, []plan.Op{plan.StartServer{Spec: spec}})[0].Err
	if err == nil || !strings.Contains(err.Error(), "has not come to the bus") {
		t.Errorf("error %v", err)
	}
	if servers, _ := l.observe(); len(servers) != 0 {
		t.Errorf("it still runs: %v", servers)
	}
}
