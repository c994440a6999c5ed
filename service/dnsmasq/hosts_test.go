package dnsmasq

import (
	"net/netip"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

func host(mac, address, name string) vnet.DHCPHost {
	h := vnet.DHCPHost{MAC: mac, Hostname: name}
	if address != "" {
		h.Address = netip.MustParseAddr(address)
	}
	return h
}

const (
	guestMAC = "02:00:00:00:00:01"
	otherMAC = "02:00:00:00:00:02"
)

func TestReservationsComeAndGoWithoutARestart(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	spec.Last = netip.MustParseAddr("192.168.231.99") // a reservation may lie beyond the range
	l.apply(plan.StartServer{Spec: spec})
	pid := l.one().PID
	l.guest("guest", spec, guestMAC)
	l.guest("other", spec, otherMAC)
	first := l.dhcp("guest", "")["ip"]

	spec.Hosts = []vnet.DHCPHost{host(guestMAC, "192.168.231.200", "printer"), host(otherMAC, "", "scanner")}
	l.apply(plan.SetHosts{Spec: spec})
	if s := l.one(); s.PID != pid || s.HostsDigest != spec.HostsDigest() {
		t.Errorf("observed %+v", s)
	}
	l.wantAnswer("", "@192.168.231.1 printer", "NOERROR", "192.168.231.200") // before it is there
	l.wantAnswer("", "@192.168.231.1 -x 192.168.231.200", "NOERROR", "printer.default.internal.")
	if ip := l.dhcp("guest", "-r "+first)["ip"]; ip != "192.168.231.200" {
		t.Errorf("guest has %s (before: %s)", ip, first)
	}
	other := l.dhcp("other", "")["ip"]
	l.wantAnswer("", "@192.168.231.1 scanner.default.internal", "NOERROR", other)
	l.wantAnswer("", "@192.168.231.1 printer.default.internal", "NOERROR", "192.168.231.200")
	l.wantAnswer("", "@192.168.231.1 -x "+other, "NOERROR", "scanner.default.internal.")

	spec.Hosts = nil
	l.apply(plan.SetHosts{Spec: spec})
	for _, name := range []string{"printer", "scanner", "scanner.default.internal"} {
		l.wantAnswer("", "@192.168.231.1 "+name, "NXDOMAIN", "")
	}
	_, leases := l.observe()
	if len(leases["default"]) != 2 {
		t.Errorf("leases: %v", leases)
	}
	for _, lease := range leases["default"] {
		if lease.Hostname != "" || lease.Expires.IsZero() {
			t.Errorf("lease %+v", lease)
		}
	}
	if ip := l.dhcp("guest", "")["ip"]; ip == "" {
		t.Error("guest without a reservation has no address")
	}
	if s := l.one(); s.PID != pid {
		t.Error("it was started anew")
	}
}

func TestReservationWithAWordThatDnsmasqKnows(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	spec.Hosts = []vnet.DHCPHost{host(guestMAC, "192.168.231.50", "ignore"), host(otherMAC, "192.168.231.51", "2h")}
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, guestMAC)
	l.guest("other", spec, otherMAC)
	if ip := l.dhcp("guest", "")["ip"]; ip != "192.168.231.50" {
		t.Errorf("guest has %q", ip)
	}
	told := l.dhcp("other", "")
	if told["ip"] != "192.168.231.51" || told["lease"] != "3600" || told["hostname"] != "2h" {
		t.Errorf("other was told %v", told)
	}
}

func TestGuestCannotTakeTheGatewaysName(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, guestMAC)
	for name, want := range map[string]string{"gateway": "192.168.231.1", "wpad": "", "localhost": "", "box": "any"} {
		ip := l.dhcp("guest", "-x hostname:"+name)["ip"]
		if want == "any" {
			want = ip
		}
		if _, answer := l.dig("", "@192.168.231.1 "+name+".default.internal"); answer != want {
			t.Errorf("%s is %q, want %q", name, answer, want)
		}
	}
}

func TestMalformedReservationIsRefused(t *testing.T) {
	for _, h := range []vnet.DHCPHost{host("", "", "a"), host("02:00:00:00:00:01\nx", "", "a"), host(guestMAC, "", "a b"),
		host(guestMAC, "", "a,b"), host(guestMAC, "", "a\nb"), host(guestMAC, "", "a.b"), host("*:*:*:*:*:*", "", "a")} {
		spec := testSpec("default", "192.168.231.1/24")
		spec.Hosts = []vnet.DHCPHost{h}
		if hosts, names, err := renderHosts(spec); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%+v: %q, %q, %v", h, hosts, names, err)
		}
	}
}
