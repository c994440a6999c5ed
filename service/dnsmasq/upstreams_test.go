package dnsmasq

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// site makes an access network with a DNS server: 10.SITE.0.2, and 10.9.9.9 at each site.
// At 10.SITE.0.3 it is authoritative for zone.example, so that its denials may be cached.
func (l *lab) site(number int) {
	l.Helper()
	name, peer := fmt.Sprintf("site%d", number), fmt.Sprintf("uplink%d", number)
	l.namespace(name, peer)
	pid := fmt.Sprintf("/run/%s.pid", name)
	sh(l, `ip addr add 10.%[1]d.0.1/24 dev %[3]s; ip -n %[2]s addr add 10.%[1]d.0.2/24 dev eth0
ip -n %[2]s addr add 10.%[1]d.0.3/24 dev eth0; ip -n %[2]s addr add 10.9.9.9/32 dev eth0; ip -n %[2]s route add default via 10.%[1]d.0.1
ip route add 10.9.9.9/32 dev %[3]s metric %[1]d
ip netns exec %[2]s dnsmasq --conf-file=/dev/null --port=53 --no-resolv --no-hosts --pid-file=%[4]s --local-ttl=600 \
  --log-queries --log-facility=/run/%[2]s.log \
  --host-record=where.example,192.0.2.%[1]d --host-record=site%[1]d.example,192.0.2.%[1]d \
  --host-record=pc.corp.example,10.1.2.%[1]d \
  --auth-zone=zone.example --auth-server=ns.zone.example,10.%[1]d.0.3 --host-record=only%[1]d.zone.example,192.0.2.%[1]d`, number, name, peer, pid)
	l.Cleanup(func() { sh(l, "kill $(cat %s); rm -f /run/%s.log", pid, name) })
}

// asked tells how often the site's server was asked for the name.
func (l *lab) asked(number int, name string) int {
	l.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/run/site%d.log", number))
	if err != nil {
		l.Fatal(err)
	}
	return strings.Count(string(b), "] "+name+" from ")
}

func upstreams(ops ...vnet.Upstream) plan.SetUpstreams {
	return plan.SetUpstreams{Network: "default", Upstreams: ops}
}

func via(address, ifname string, domains ...string) vnet.Upstream {
	return vnet.Upstream{Address: netip.MustParseAddr(address), Interface: ifname, Domains: domains}
}

func TestUpstreamsFollowAtOnce(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.site(2)
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")})
	const where = "@192.168.231.1 where.example"
	began := time.Now()
	l.wantAnswer("", where, "REFUSED", "") // no upstream yet
	l.wantAnswer("", "@192.168.231.1 gateway", "NOERROR", "192.168.231.1")
	l.apply(upstreams(via("10.1.0.2", "")))
	l.wantAnswer("", where, "NOERROR", "192.0.2.1")
	l.wantAnswer("", where, "NOERROR", "192.0.2.1") // from the cache
	l.wantAnswer("", "@192.168.231.1 site2.example", "REFUSED", "")
	l.apply(upstreams(via("10.2.0.2", "")))
	l.wantAnswer("", where, "NOERROR", "192.0.2.2")
	l.wantAnswer("", "@192.168.231.1 site2.example", "NOERROR", "192.0.2.2")
	l.apply(upstreams()) // offline: nothing of the cache, no waiting, local names stay
	l.wantAnswer("", where, "REFUSED", "")
	l.wantAnswer("", "@192.168.231.1 gateway.default.internal", "NOERROR", "192.168.231.1")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("all that took %s", took)
	}
	if s := l.one(); !s.KnownUpstreams || len(s.Upstreams) != 0 {
		t.Errorf("observed %+v", s)
	}
}

func TestNegativeAnswersAreForgottenWithTheUplink(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.site(2)
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")}, upstreams(via("10.1.0.3", "")))
	const query = "@192.168.231.1 only2.zone.example"
	l.wantAnswer("", query, "NXDOMAIN", "")
	l.wantAnswer("", query, "NXDOMAIN", "")
	if n := l.asked(1, "only2.zone.example"); n != 1 {
		t.Errorf("site 1 was asked %d times: the denial wasn't cached, and the rest shows nothing", n)
	}
	l.apply(upstreams(via("10.2.0.3", "")))
	l.wantAnswer("", query, "NOERROR", "192.0.2.2")
}

func TestUpstreamIsBoundToItsInterface(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.site(2)
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")})
	for _, site := range []string{"1", "2", "1"} { // the same address at both
		l.apply(upstreams(via("10.9.9.9", "uplink"+site)))
		l.wantAnswer("", "@192.168.231.1 where.example", "NOERROR", "192.0.2."+site)
		l.wantAnswer("", "@192.168.231.1 +tcp site"+site+".example", "NOERROR", "192.0.2."+site)
	}
}

func TestDomainsGoTheirOwnWay(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.site(2)
	l.apply(plan.StartServer{Spec: l.network("default", "10.231.0.1/24")},
		upstreams(via("10.1.0.2", "uplink1"), via("10.2.0.2", "uplink2", "corp.example", "10.in-addr.arpa")))
	l.wantAnswer("", "@10.231.0.1 where.example", "NOERROR", "192.0.2.1")
	// A private answer is fine, and so is a private reverse lookup that has a way of its own …
	l.wantAnswer("", "@10.231.0.1 pc.corp.example", "NOERROR", "10.1.2.2")
	l.wantAnswer("", "@10.231.0.1 -x 10.1.2.2", "NOERROR", "pc.corp.example.")
	// … but our own subnet is ours.
	l.wantAnswer("", "@10.231.0.1 -x 10.231.0.7", "NXDOMAIN", "")
	l.wantAnswer("", "@10.231.0.1 -x 10.231.0.1", "NOERROR", "gateway.default.internal.")
	if l.asked(2, "2.2.1.10.in-addr.arpa") == 0 || l.asked(2, "7.0.231.10.in-addr.arpa") != 0 {
		t.Error("a reverse lookup of our own subnet was forwarded")
	}
}

func TestWhatIsOursStaysHere(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.apply(plan.StartServer{Spec: l.network("default", "100.64.7.1/28")}, upstreams(via("10.1.0.2", "")))
	for query, name := range map[string]string{
		"nobody":                     "nobody",
		"nobody.default.internal":    "nobody.default.internal",
		"-x 192.168.5.5":             "5.5.168.192.in-addr.arpa",
		"-x 100.64.7.9":              "9.7.64.100.in-addr.arpa",
		"-t TXT x.default.internal.": "x.default.internal",
	} {
		l.wantAnswer("", "@100.64.7.1 "+query, "NXDOMAIN", "")
		if l.asked(1, name) != 0 {
			t.Errorf("%s was forwarded", query)
		}
	}
	l.wantAnswer("", "@100.64.7.1 where.example", "NOERROR", "192.0.2.1")
	l.dig("", "@100.64.7.1 -x 192.88.99.1")
	if l.asked(1, "where.example") == 0 || l.asked(1, "1.99.88.192.in-addr.arpa") == 0 {
		t.Error("the log of the site is no good")
	}
}

func TestSetUpstreamsNeedsAServer(t *testing.T) {
	l := newLab(t)
	err := l.room.Apply(context.Background(), []plan.Op{upstreams()})[0].Err
	if err == nil || !strings.Contains(err.Error(), "it has no server") {
		t.Errorf("error %v", err)
	}
}

func TestMalformedUpstreamIsRefused(t *testing.T) {
	l := newLab(t)
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")}, upstreams(via("192.0.2.1", "")))
	before := l.one()
	for _, u := range []vnet.Upstream{{}, via("192.0.2.1", "a b"), via("192.0.2.1", "", "a/b"), via("192.0.2.1", "", "a\nb")} {
		if err := l.room.Apply(context.Background(), []plan.Op{upstreams(u)})[0].Err; err == nil {
			t.Errorf("%v was accepted", u)
		}
	}
	if s := l.one(); !s.KnownUpstreams || len(s.Upstreams) != 1 || s.PID != before.PID {
		t.Errorf("after refusals: %+v", s)
	}
}

// A server that is no longer on the bus, as after the bus's restart, is started anew. Here
// its process is exchanged for one that has never found the bus.
func TestServerThatLeftTheBusIsStartedAnew(t *testing.T) {
	l := newLab(t)
	l.site(1)
	l.apply(plan.StartServer{Spec: l.network("default", "192.168.231.1/24")})
	s := l.room.server("default")
	deaf := s.record
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	l.room.busAddress = "unix:path=/run/no-such-bus"
	s, err := l.room.spawn(deaf)
	if err != nil {
		t.Fatal(err)
	}
	l.room.busAddress = labBus
	l.apply(upstreams(via("10.1.0.2", "")))
	l.wantAnswer("", "@192.168.231.1 where.example", "NOERROR", "192.0.2.1")
	now := l.one()
	if now.PID == s.PID || !now.KnownUpstreams || len(now.Upstreams) != 1 {
		t.Errorf("observed %+v", now)
	}
	if syscall.Kill(s.PID, 0) == nil {
		t.Error("the deaf one still runs")
	}
}
