package uplink

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

const (
	// profilesAtOnce is how many questions are on their way at a time: the system bus lets a
	// connection wait for 128 replies by default (max_replies_per_connection).
	profilesAtOnce = 32
	// profilesPatience bounds the reading of all of them.
	profilesPatience = 10 * time.Second

	// Profiles that NetworkManager made itself for what it merely watches, our own bridges
	// among it: NM_SETTINGS_CONNECTION_FLAG_NM_GENERATED and _EXTERNAL
	// (nm-dbus-interface.h), which gonetworkmanager lacks.
	profileGenerated = 0x02
	profileExternal  = 0x08
)

// profiles is the cache of NetworkManager's profiles. It is filled by the first Read, later by
// Watch upon a change, so that no other reading has to wait for it.
type profiles struct {
	mu     sync.Mutex
	list   []profile
	filled bool
}

// first returns the profiles, reading them if that was never done.
func (p *profiles) first(ctx context.Context, r *Reader) []profile {
	p.mu.Lock()
	list, filled := p.list, p.filled
	p.mu.Unlock()
	if filled {
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := readProfiles(ctx, r.bus)
	if err != nil {
		r.log.Warn("cannot read profiles", "error", err)
	}
	p.put(list) // also after an error: a watch reads them again, a pass shall not wait
	return list
}

// cached returns the profiles as they were last read, whether or not NetworkManager is there now.
func (p *profiles) cached() []profile {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

func (p *profiles) put(list []profile) {
	p.mu.Lock()
	p.list, p.filled = list, true
	p.mu.Unlock()
}

// readProfiles reads the profiles that people and programs made.
//
// gonetworkmanager's Settings would do the same on godbus's shared connection: without a deadline, on
// the bus of the environment whichever Options.Bus is, and open to file descriptors from any peer. So
// only its names and types are used here.
func readProfiles(ctx context.Context, bus *godbus.Conn) ([]profile, error) {
	var all objects
	call := bus.Object(nmName, objectRoot).CallWithContext(ctx, getManagedObjects, godbus.FlagNoAutoStart)
	if call.Err != nil {
		return nil, fmt.Errorf("cannot list profiles: %w", call.Err)
	}
	if all, _ = call.Body[0].(objects); all == nil {
		return nil, fmt.Errorf("cannot list profiles: reply has another type")
	}
	var paths []godbus.ObjectPath
	for path, ifaces := range all {
		p, ok := ifaces[nm.ConnectionInterface]
		if ok && get[uint32](p, nm.ConnectionPropertyFlags)&(profileGenerated|profileExternal) == 0 {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	list := make([]profile, 0, len(paths))
	for chunk := range slices.Chunk(paths, profilesAtOnce) {
		calls := make([]*godbus.Call, len(chunk))
		for i, path := range chunk {
			calls[i] = bus.Object(nmName, path).GoWithContext(ctx, nm.ConnectionGetSettings,
				godbus.FlagNoAutoStart, make(chan *godbus.Call, 1))
		}
		for _, call := range calls {
			<-call.Done
			if call.Err != nil {
				if ctx.Err() != nil {
					return nil, fmt.Errorf("cannot read profile %q: %w", call.Path, ctx.Err())
				}
				continue // deleted meanwhile, or of another user
			}
			if settings, ok := call.Body[0].(map[string]properties); ok {
				p := decodeProfile(settings)
				p.path = call.Path
				list = append(list, p)
			}
		}
	}
	return list, nil
}

// decodeProfile picks what a profile claims for itself: addresses, routes, gateway, name
// servers (IPv4), and what WireGuard's peers may send.
func decodeProfile(settings map[string]properties) profile {
	ip4 := settings["ipv4"]
	con := settings["connection"]
	p := profile{
		id:         get[string](con, "id"),
		uuid:       get[string](con, "uuid"),
		kind:       get[string](con, "type"),
		ifname:     get[string](con, "interface-name"),
		shared:     get[string](ip4, "method") == "shared",
		master:     cmp.Or(get[string](con, "controller"), get[string](con, "master")),
		sharedFrom: get[map[string]string](settings["user"], "data")[sharedFromKey],
	}
	_, p.authenticated = settings["802-1x"]
	p.prefixes = decodePrefixes(get[[]properties](ip4, "address-data"), "address")
	for _, r := range decodeRoutes(get[[]properties](ip4, "route-data")) {
		p.prefixes = append(p.prefixes, r.dst)
	}
	hosts := []netip.Addr{parseAddr(get[string](ip4, "gateway"))}
	for _, n := range get[[]uint32](ip4, "dns") {
		var b [4]byte // the number's bytes in memory are the address
		binary.NativeEndian.PutUint32(b[:], n)
		hosts = append(hosts, netip.AddrFrom4(b))
	}
	for _, a := range hosts {
		if a.IsValid() {
			p.prefixes = append(p.prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, peer := range get[[]properties](settings["wireguard"], "peers") {
		for _, text := range get[[]string](peer, "allowed-ips") {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				p.prefixes = append(p.prefixes, prefix)
			}
		}
	}
	return p
}
