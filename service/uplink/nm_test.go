package uplink

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	nm "github.com/Wifx/gonetworkmanager/v3"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// pokes collects what a watch said.
type pokes struct {
	mu   sync.Mutex
	list []string
}

func (p *pokes) poke(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, reason)
}

func (p *pokes) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

func (p *pokes) seen(reason string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.list, reason)
}

// TestNetworkManager follows a real NetworkManager through a day. It needs root.
func TestNetworkManager(t *testing.T) {
	before := goleak.IgnoreCurrent()
	l := newLaptop(t)
	// Others' virtual networks, and one of ours, which NetworkManager sees as external.
	l.run("ip link add docker0 type bridge")
	l.run("ip addr add 172.17.0.1/16 dev docker0")
	l.run("ip link set docker0 up")
	l.run("ip link add gway0 type bridge")
	l.run("ip link set gway0 alias " + plan.AliasPrefix + "default")
	l.run("ip addr add 192.168.231.1/24 dev gway0")
	l.run("ip link set gway0 up")
	l.run("ip link add cali0 type veth peer name cali1")
	l.run("ip link set cali1 master docker0 up")
	l.run("ip addr add 10.244.0.1/24 dev cali0")
	l.run("ip link set cali0 up")
	l.write("/run/resolv.conf", "nameserver 10.7.1.53\n")

	clock := time.Now()
	bus := l.connect()
	r := New(Options{Bus: bus, ResolvConf: "/run/resolv.conf", Now: func() time.Time { return clock }})
	watching, stop := context.WithCancel(context.Background())
	var said pokes
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(watching, said.poke) }()
	l.until("the watch is in force", func() bool { return said.seen("watching NetworkManager") })

	if u := l.read(r); u.Source != SourceRtnetlink || len(u.List) != 0 || u.Primary != "" {
		t.Errorf("before NetworkManager: %+v", u)
	}
	l.startNM()
	both := func(u *vnet.Uplinks) bool {
		eth, _ := u.Find("eth0")
		wlan, _ := u.Find("wlan0")
		return u.Source == SourceNetworkManager && len(u.List) == 2 && eth.Usable && wlan.Usable && u.Primary == "eth0"
	}

	t.Run("activated uplinks", func(t *testing.T) {
		l.tb = t
		u := l.readUntil(r, "both uplinks are usable", both)
		l.until("the profiles are read", func() bool { return said.seen("profiles") })
		u = l.read(r)
		if len(u.List) != 2 || u.Physical != "eth0" || u.Recheck != 0 || u.Stub.IsValid() {
			t.Errorf("uplinks %+v", u)
		}
		eth, _ := u.Find("eth0")
		wlan, _ := u.Find("wlan0")
		if eth.Kind != vnet.Ethernet || eth.Connection != "Office" || eth.ConnectionUUID != "11111111-1111-4111-8111-111111111111" ||
			!eth.Default4 || eth.Gateway4 != netip.MustParseAddr("10.7.1.1") || eth.Metric4 != 100 || eth.Metered != "no" ||
			len(eth.Addresses) == 0 || !netip.MustParsePrefix("10.7.1.0/24").Contains(eth.Addresses[0].Addr()) ||
			!slices.Equal(eth.Nameservers, []netip.Addr{netip.MustParseAddr("10.7.1.53")}) {
			t.Errorf("eth0 %+v", eth)
		}
		if wlan.Metric4 != 600 || wlan.Metered != "yes" || wlan.Gateway4 != netip.MustParseAddr("10.7.2.1") {
			t.Errorf("wlan0 %+v", wlan)
		}
		owners := map[string]string{}
		for _, res := range u.Reserved {
			owners[res.Prefix.String()] = res.Owner
		}
		for prefix, owner := range map[string]string{
			"10.99.0.0/16": `profile "Office"`, "10.55.1.0/24": `profile "Workshop"`, "10.57.0.0/16": `profile "Workshop"`,
			"10.56.0.53/32": `profile "Workshop"`, "10.7.1.1/32": "gateway of eth0", "10.7.2.53/32": "name server of wlan0",
		} {
			if !strings.Contains(owners[prefix], owner) {
				t.Errorf("owner of %s is %q, want %q", prefix, owners[prefix], owner)
			}
		}
		for _, prefix := range []string{"192.168.231.0/24", "172.17.0.0/16", "10.244.0.0/24"} {
			if owner, ok := owners[prefix]; ok {
				t.Errorf("%s is reserved by %s, which NetworkManager only watches", prefix, owner)
			}
		}
		if len(u.Upstreams) != 1 || u.Upstreams[0].Interface != "wlan0" || !slices.Equal(u.Upstreams[0].Domains, []string{"b.example"}) {
			t.Errorf("upstreams %+v", u.Upstreams)
		}
	})

	t.Run("primary switches", func(t *testing.T) {
		l.tb = t
		said.take()
		l.run("nmcli connection down Office")
		l.readUntil(r, "wlan0 is primary and eth0 gone", func(u *vnet.Uplinks) bool { return u.Primary == "wlan0" && len(u.List) == 1 })
		l.until("PrimaryConnection was poked", func() bool { return said.seen("PrimaryConnection") })
		l.run("nmcli connection up Office")
		l.readUntil(r, "both are back", both)
	})

	t.Run("unplugged", func(t *testing.T) {
		l.tb = t
		l.readUntil(r, "all is well", both)
		l.run("ip -n a link set lan down")
		l.until("the carrier is lost", func() bool {
			k := l.dump()
			eth, _ := k.LinkByName("eth0")
			return !eth.Carrier
		})
		u := l.read(r)
		if eth, _ := u.Find("eth0"); !eth.Usable || u.Recheck != 300*time.Millisecond || u.Primary != "eth0" {
			t.Errorf("at once: recheck %v, primary %q, %+v", u.Recheck, u.Primary, eth)
		}
		clock = clock.Add(299 * time.Millisecond)
		u = l.read(r)
		if eth, _ := u.Find("eth0"); !eth.Usable || u.Recheck != time.Millisecond {
			t.Errorf("after 299 ms: recheck %v, %+v", u.Recheck, eth)
		}
		clock = clock.Add(time.Millisecond)
		u = l.read(r)
		// NetworkManager takes 6 s until it lets go of the device; on a slow machine it may have.
		eth, ok := u.Find("eth0")
		if ok && (eth.Usable || eth.Reason != "no carrier" || !eth.LostCarrier || u.Recheck != lostFor-300*time.Millisecond) {
			t.Errorf("after 300 ms: recheck %v, %+v", u.Recheck, eth)
		}
		clock = clock.Add(lostFor - 300*time.Millisecond)
		u = l.read(r)
		if eth, _ := u.Find("eth0"); eth.LostCarrier || u.Recheck != 0 {
			t.Errorf("after 3 s: recheck %v, %+v", u.Recheck, eth)
		}
		if wlan, _ := u.Find("wlan0"); !wlan.Usable {
			t.Errorf("wlan0 %+v", wlan)
		}
		l.run("ip -n a link set lan up")
		l.readUntil(r, "it is plugged in again", both)
	})

	t.Run("forged signals", func(t *testing.T) {
		l.tb = t
		peer := l.connect()
		said.take()
		// Nameservers: a word that the real one has no reason to say here.
		forge(t, peer, bus, propertiesInterface, "PropertiesChanged", string(nmPath)+"/IP6Config/1", nm.IP6ConfigInterface,
			map[string]godbus.Variant{"Nameservers": godbus.MakeVariant([][]byte{})}, []string{})
		forge(t, peer, bus, busName, "NameOwnerChanged", "/org/freedesktop/DBus", nmName, "", peer.Names()[0])
		l.run("nmcli connection modify Workshop connection.autoconnect-priority 7")
		l.until("a real signal was heard", func() bool { return said.seen("profiles") })
		if said.seen("Nameservers") || said.seen("NameOwnerChanged") {
			t.Error("a forged signal poked")
		}
		if u := l.read(r); u.Source != SourceNetworkManager {
			t.Errorf("source %q", u.Source)
		}
	})

	t.Run("tunnel unknown to NetworkManager", func(t *testing.T) {
		l.tb = t
		// As OpenVPN's redirect-gateway def1 does.
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1, Flags: unix.IFF_NO_PI, NonPersist: true}
		if err := netlink.LinkAdd(tun); err != nil {
			t.Fatal(err)
		}
		l.run("ip addr add 10.8.0.2/24 dev tun0")
		l.run("ip link set tun0 up")
		l.run("ip route add 0.0.0.0/1 via 10.8.0.1 dev tun0")
		if u := l.read(r); u.Primary != "eth0" {
			t.Errorf("primary %q with one half", u.Primary)
		}
		l.run("ip route add 128.0.0.0/1 via 10.8.0.1 dev tun0")
		u := l.read(r)
		v, _ := u.Find("tun0")
		if u.Primary != "tun0" || u.Physical != "eth0" || !v.Usable || v.Kind != vnet.VPN || v.Gateway4 != netip.MustParseAddr("10.8.0.1") {
			t.Errorf("primary %q, physical %q, %+v", u.Primary, u.Physical, v)
		}
		l.readUntil(r, "NetworkManager has noticed it, and nothing changes", func(u *vnet.Uplinks) bool {
			return strings.Contains(l.run("nmcli -g DEVICE,STATE device"), "tun0:connected") && u.Primary == "tun0" && u.Physical == "eth0"
		})
		l.run("ip route del 128.0.0.0/1 dev tun0")
		l.run("ip route del 0.0.0.0/1 dev tun0")

		// As wg-quick does.
		l.run("ip route add default dev tun0 table 51820")
		if u := l.read(r); u.Primary != "eth0" {
			t.Errorf("primary %q without a rule", u.Primary)
		}
		l.run("ip rule add not fwmark 51820 table 51820")
		u = l.read(r)
		if v, _ := u.Find("tun0"); u.Primary != "tun0" || u.Physical != "eth0" || !v.Usable || v.Gateway4.IsValid() {
			t.Errorf("by rule: primary %q, physical %q, %+v", u.Primary, u.Physical, v)
		}
		l.run("ip rule del not fwmark 51820 table 51820")
		tun.Fds[0].Close() // and the device is gone, as it isn't persistent
		l.readUntil(r, "all is as before", both)
	})

	t.Run("tunnel of NetworkManager", func(t *testing.T) {
		l.tb = t
		l.run("nmcli connection up Company")
		u := l.readUntil(r, "the tunnel is primary", func(u *vnet.Uplinks) bool { return u.Primary == "tun1" })
		v, _ := u.Find("tun1")
		if u.Physical != "eth0" || v.Kind != vnet.VPN || v.Connection != "Company" || v.Gateway4 != netip.MustParseAddr("10.8.1.1") || v.Metric4 != 50 {
			t.Errorf("physical %q, %+v", u.Physical, v)
		}
		l.run("nmcli connection down Company")
		l.readUntil(r, "all is as before", both)
	})

	t.Run("never-default", func(t *testing.T) {
		l.tb = t
		l.run("nmcli connection modify Home ipv4.never-default yes")
		l.run("nmcli connection up Home")
		u := l.readUntil(r, "wlan0 has an address", func(u *vnet.Uplinks) bool {
			wlan, _ := u.Find("wlan0")
			return len(wlan.Addresses) > 0
		})
		if wlan, _ := u.Find("wlan0"); wlan.Default4 || wlan.Usable || wlan.Reason != "no IPv4 default route" {
			t.Errorf("wlan0 %+v", wlan)
		}
		l.run("ip route add default via 10.7.2.1 dev wlan0 metric 900")
		u = l.read(r)
		if wlan, _ := u.Find("wlan0"); !wlan.Usable || wlan.Gateway4 != netip.MustParseAddr("10.7.2.1") || wlan.Metric4 != 900 || u.Primary != "eth0" {
			t.Errorf("with a route of others: primary %q, wlan0 %+v", u.Primary, wlan)
		}
		l.run("nmcli connection modify Home ipv4.never-default no")
		l.run("nmcli connection up Home")
		l.readUntil(r, "all is as before", both)
	})

	t.Run("bridge and hotspot of NetworkManager", func(t *testing.T) {
		l.tb = t
		l.run("nmcli connection add type bridge con-name Bridge ifname br0 bridge.stp no ipv4.method manual ipv4.addresses 10.60.0.2/24 ipv4.gateway 10.60.0.1 ipv4.route-metric 900 ipv6.method disabled")
		l.run("nmcli connection add type ethernet con-name Port ifname eth1 master br0")
		l.run("ip link add eth1 type veth peer name lan1 netns a")
		l.run("ip -n a link set lan1 up")
		l.run("nmcli device set eth1 managed yes")
		u := l.readUntil(r, "the bridge is usable", func(u *vnet.Uplinks) bool { br, _ := u.Find("br0"); return br.Usable })
		if br, _ := u.Find("br0"); br.Kind != vnet.BridgeKind || br.Gateway4 != netip.MustParseAddr("10.60.0.1") || br.Connection != "Bridge" || len(u.List) != 3 {
			t.Errorf("br0 %+v of %+v", br, u.List)
		}
		said.take()
		l.runWords("nmcli", "connection", "modify", "Bridge", "ipv4.method", "shared", "ipv4.gateway", "")
		l.until("the profiles are read", func() bool { return said.seen("profiles") })
		if u := l.read(r); len(u.List) != 3 {
			t.Errorf("edited, but not in force: %+v", u.List)
		}
		l.run("nmcli connection up Bridge")
		l.readUntil(r, "it is a downlink", func(u *vnet.Uplinks) bool {
			_, ok := u.Find("br0")
			return !ok && strings.HasPrefix(l.run("nmcli -g GENERAL.STATE device show br0"), "100")
		})
		l.run("nmcli connection delete Bridge Port")
		l.run("ip link del eth1")
		l.readUntil(r, "all is as before", both)
	})

	t.Run("NetworkManager hangs", func(t *testing.T) {
		l.tb = t
		if err := l.nm.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		u := l.read(r) // this one waits for 2 s
		if u.Source != SourceRtnetlink || u.Primary != "eth0" || u.Recheck != againAfter {
			t.Errorf("%+v", u)
		}
		start := time.Now()
		for range 5 {
			l.read(r)
		}
		if took := time.Since(start); took > patience {
			t.Errorf("five more readings took %v", took)
		}
		if err := l.nm.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		l.readUntil(r, "it answers again", both)
	})

	t.Run("NetworkManager stops and starts", func(t *testing.T) {
		l.tb = t
		said.take()
		l.stopNM()
		l.until("its leaving was poked", func() bool { return said.seen("NameOwnerChanged") })
		u := l.read(r)
		eth, _ := u.Find("eth0")
		if u.Source != SourceRtnetlink || u.Primary != "eth0" || len(u.List) != 2 || !eth.Usable || eth.Connection != "" ||
			!slices.Equal(eth.Nameservers, []netip.Addr{netip.MustParseAddr("10.7.1.53")}) {
			t.Errorf("without NetworkManager: %+v", u)
		}
		said.take()
		l.startNM()
		l.readUntil(r, "it is back", both)
		if !said.seen("NameOwnerChanged") {
			t.Error("its coming was not poked")
		}
	})
	l.tb = t

	if owner, err := r.nameOwner(watching); err != nil || owner == "" {
		t.Errorf("owner %q, %v", owner, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("watch ended with %v", err)
	}
	bus.Close()

	// A bus that is lost is an error, and leaves nothing running either.
	lost := l.connect()
	var heard pokes
	go func() { ended <- New(Options{Bus: lost}).Watch(context.Background(), heard.poke) }()
	l.until("the watch is in force", func() bool { return heard.seen("watching NetworkManager") })
	lost.Close()
	if err := <-ended; err == nil {
		t.Error("watch ended without an error although the bus is lost")
	}
	goleak.VerifyNone(t, before)
}

// forge sends a signal from a peer to a connection that nobody asked for.
func forge(t *testing.T, from, to *godbus.Conn, iface, member, path string, body ...any) {
	t.Helper()
	msg := &godbus.Message{
		Type: godbus.TypeSignal,
		Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldDestination: godbus.MakeVariant(to.Names()[0]),
			godbus.FieldInterface:   godbus.MakeVariant(iface),
			godbus.FieldMember:      godbus.MakeVariant(member),
			godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath(path)),
			godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
		},
		Body: body,
	}
	from.Send(msg, nil)
	// A call that is answered after it tells that the bus has passed it on.
	if err := from.BusObject().Call(busName+".GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
}
