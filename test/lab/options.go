package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
)

// Options describes a lab. The zero value is two sites, NetworkManager and polkitd, no gangwayd.
type Options struct {
	// Sites, in order; nil means DefaultSites().
	Sites []SiteOptions

	// NoNetworkManager and NoPolkit leave the part out at start; Lab.NM.Start and Lab.Polkit.Start
	// may start it later.
	NoNetworkManager bool
	NoPolkit         bool

	// NMUnmanaged is NetworkManager's unmanaged-devices, e.g. "interface-name:gway*". NMManaged lists
	// further interface-name globs that NetworkManager takes although they are veths; the uplinks always are.
	NMUnmanaged string
	NMManaged   []string
	// NMConf are files of NetworkManager's conf.d by name, "95-test.conf": "[main]\n..."; NMConfDir names a directory whose
	// snippets (*.conf with a section [device...]) join them, as data/90-gangway.conf does on a real system.
	NMConf    map[string]string
	NMConfDir string
	// NMPolkit makes NetworkManager ask polkit (auth-polkit=true).
	NMPolkit bool
	// NMResolvConf makes NetworkManager write the laptop's /etc/resolv.conf; otherwise nobody does.
	NMResolvConf bool

	// BusPolicyDir, ServiceDir and PolkitActionDir name directories whose bus policies (*.conf),
	// activation files (*.service) and polkit actions (*.policy) join the distribution's. They may be one
	// directory; files of other formats are passed over. The lab's own activation file of gangwayd wins.
	BusPolicyDir    string
	ServiceDir      string
	PolkitActionDir string

	// Gangwayd is the path of the daemon; if set, it is activatable on the lab's bus.
	// GangwaydArgs follow it, GangwaydEnv ("K=V") joins its environment.
	Gangwayd     string
	GangwaydArgs []string
	GangwaydEnv  []string

	// Sysctl is set in the laptop before anything starts: "net.ipv4.conf.all.rp_filter": "1".
	Sysctl map[string]string
}

// SiteOptions describes one access network.
type SiteOptions struct {
	// Name is 1 to 6 letters or digits, unique in the lab. It is what the site's DNS answers to TXT site.example.
	Name string
	// Uplink names the laptop's interface there, at most 15 bytes.
	Uplink string
	// Metric is the route metric of the NetworkManager profile; the lowest wins.
	Metric int
	// IPv4 is the LAN, /16 to /29; IPv6 a /64. An invalid (zero) prefix means: not at this site.
	IPv4, IPv6 netip.Prefix
	// RouterIPv4 is the router's address, by default the first of the LAN. The pool is the
	// upper half of the LAN, without the router's address.
	RouterIPv4 netip.Addr
	// WiFi makes the site an access point's, which drops frames whose source is not the laptop's own MAC (Site.Violations), and sends the
	// laptop none that are for another MAC. NetworkManager goes on seeing Ethernet.
	WiFi bool
	// ReflectMulticast, with WiFi, sends the laptop's own frames for many back to it, as access points do.
	ReflectMulticast bool
	// WWAN makes the site a mobile carrier's: the laptop's interface, whose name ought to begin with "ww" as those of modems do, has no
	// link layer, and NetworkManager's profile has static addresses. IPv4 may be as small as a /30 there.
	WWAN bool
	// Unplugged sites have no carrier until Site.Plug.
	Unplugged bool

	// Bridge, HeedCarrier and Profile are those of UplinkOptions, for the first uplink; More are further ones
	// of the laptop into the same LAN.
	Bridge      string
	HeedCarrier bool
	Profile     string
	More        []UplinkOptions

	// RA, if not nil, has the router advertise by radvd instead of dnsmasq. Without prefixes it is about IPv6.
	RA *RA
	// Mute has nobody advertise until Router.StartRA or SetRA; with a nil RA the latter works on a muted site alone.
	Mute bool
	// DHCPv6 adds a stateful server to the site; whether hosts ask it is up to the RA's Managed.
	DHCPv6 bool
	// RouterMAC is the router's on the LAN, nil one of the lab's own; RouterLinkLocal its link-local address, by default the one
	// that follows from the MAC.
	RouterMAC       net.HardwareAddr
	RouterLinkLocal netip.Addr
}

// UplinkOptions describes a cable between the laptop and a site's switch.
type UplinkOptions struct {
	// Name, Metric and Unplugged are as SiteOptions.Uplink, .Metric and .Unplugged.
	Name      string
	Metric    int
	Unplugged bool
	// Bridge, if set, makes NetworkManager's profiles those of a bridge of that name whose port is the interface,
	// as users make them by hand, instead of an ethernet profile.
	Bridge string
	// HeedCarrier sets ignore-carrier=no for the bridge, without which NetworkManager 1.42 stays on one that has lost its carrier.
	HeedCarrier bool
	// Profile is text that is added to the profile that has the addresses, in keyfile format (nm-settings-keyfile(5)).
	Profile string
}

// Interface is what has the addresses: the bridge, if there is one.
func (u UplinkOptions) Interface() string { return cmp.Or(u.Bridge, u.Name) }

// uplinks lists the site's cables, its own first.
func (s *SiteOptions) uplinks() []UplinkOptions {
	own := UplinkOptions{Name: s.Uplink, Metric: s.Metric, Unplugged: s.Unplugged, Bridge: s.Bridge, HeedCarrier: s.HeedCarrier, Profile: s.Profile}
	return append([]UplinkOptions{own}, s.More...)
}

// DefaultSites are site a, wlan0 with metric 600, and site b, eth0 with metric 100.
func DefaultSites() []SiteOptions {
	return []SiteOptions{
		{Name: "a", Uplink: "wlan0", Metric: 600, IPv4: netip.MustParsePrefix("192.168.10.0/24"), IPv6: netip.MustParsePrefix("2001:db8:a::/64")},
		{Name: "b", Uplink: "eth0", Metric: 100, IPv4: netip.MustParsePrefix("10.20.0.0/24"), IPv6: netip.MustParsePrefix("2001:db8:b::/64")},
	}
}

var siteName = regexp.MustCompile(`^[a-z0-9]{1,6}$`)

// complete fills in defaults and rejects what could not work.
func (o *Options) complete() error {
	if o.Sites == nil {
		o.Sites = DefaultSites()
	}
	o.Sites = append([]SiteOptions(nil), o.Sites...)
	names, uplinks := map[string]bool{}, map[string]bool{}
	for i := range o.Sites {
		s := &o.Sites[i]
		switch {
		case !siteName.MatchString(s.Name) || names[s.Name]:
			return fmt.Errorf("cannot use site name %q: want 1 to 6 unique letters or digits", s.Name)
		case s.IPv4.IsValid() && (!s.IPv4.Addr().Is4() || s.IPv4.Bits() < 16 || s.IPv4.Bits() > 29 && !(s.WWAN && s.IPv4.Bits() == 30)):
			return fmt.Errorf("cannot use IPv4 LAN %q of site %q: want /16 to /29", s.IPv4, s.Name)
		case s.ReflectMulticast && !s.WiFi:
			return fmt.Errorf("cannot reflect multicast at site %q: it is no Wi-Fi", s.Name)
		case s.IPv6.IsValid() && (!s.IPv6.Addr().Is6() || s.IPv6.Bits() != 64):
			return fmt.Errorf("cannot use IPv6 LAN %q of site %q: want a /64", s.IPv6, s.Name)
		}
		for _, u := range s.uplinks() {
			for _, name := range slices.Compact([]string{u.Name, u.Interface()}) {
				if len(name) == 0 || len(name) > 15 || uplinks[name] {
					return fmt.Errorf("cannot use uplink name %q of site %q: want 1 to 15 unique bytes", name, s.Name)
				}
				uplinks[name] = true
			}
		}
		if err := errors.Join(s.completeRA(), s.completeWWAN()); err != nil {
			return err
		}
		names[s.Name] = true
		s.IPv4, s.IPv6 = s.IPv4.Masked(), s.IPv6.Masked()
		if s.IPv4.IsValid() && !s.RouterIPv4.IsValid() {
			s.RouterIPv4 = s.IPv4.Addr().Next()
		}
		if s.IPv4.IsValid() && !s.IPv4.Contains(s.RouterIPv4) {
			return fmt.Errorf("cannot use router address %q of site %q: not in %s", s.RouterIPv4, s.Name, s.IPv4)
		}
	}
	return nil
}

// completeRA fills in the RA's prefix.
func (s *SiteOptions) completeRA() error {
	if !s.IPv6.IsValid() && (s.RA != nil || s.DHCPv6) {
		return fmt.Errorf("cannot advertise at site %q: it has no IPv6", s.Name)
	}
	if s.RA != nil && s.RA.Prefixes == nil {
		ra := *s.RA
		ra.Prefixes = DefaultRA(s.IPv6).Prefixes
		s.RA = &ra
	}
	return nil
}
