package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Router is an IPv6 router on a site's LAN. radvd advertises, or, what radvd cannot say, the lab itself. Its methods are not for
// concurrent use.
type Router struct {
	*Host
	Site      *Site
	Interface string // on the LAN
	MAC       net.HardwareAddr
	LinkLocal netip.Addr

	line  int // to the internet
	ra    RA
	begun bool // ra has been set
	radvd *process
	ours  *advertiser
}

// RouterOptions describes a further router of a site.
type RouterOptions struct {
	// RA is what it advertises; it advertises nothing until SetRA if nil.
	RA *RA
	// MAC is that of its interface on the LAN, nil one of the lab's own; LinkLocal by default follows from it.
	MAC       net.HardwareAddr
	LinkLocal netip.Addr
}

// IPv6Router is the site's own router; its namespace is Site.Router.
func (s *Site) IPv6Router() *Router {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routers[0]
}

// AddRouter puts a further router on the LAN, with a line of its own to the internet. Its name is 1 to 5 letters or digits, unique at
// the site. It has no IPv4, and takes packets from all prefixes of the site.
func (s *Site) AddRouter(ctx context.Context, name string, o RouterOptions) (*Router, error) {
	if !siteName.MatchString(name) || len(name) > 5 {
		return nil, fmt.Errorf("cannot add router %q to site %q: want a name of 1 to 5 letters or digits", name, s.Name)
	}
	if s.Options.WWAN {
		return nil, fmt.Errorf("cannot add router %q to site %q: a WWAN has no LAN", name, s.Name)
	}
	line, err := s.lab.newLine()
	if err != nil {
		return nil, fmt.Errorf("cannot add router %q to site %q: %w", name, s.Name, err)
	}
	r := &Router{Site: s, Interface: lanName, MAC: mac(6, line), LinkLocal: o.LinkLocal, line: line}
	if o.MAC != nil {
		r.MAC = o.MAC
	}
	err = r.start(ctx, name, line)
	if err == nil && o.RA != nil {
		err = r.SetRA(ctx, *o.RA)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot add router %q to site %q: %w", name, s.Name, err)
	}
	return r, nil
}

func (r *Router) start(ctx context.Context, name string, line int) (err error) {
	s := r.Site
	if r.Host, err = s.lab.newHost("router-" + s.Name + "-" + name); err != nil {
		return err
	}
	if err := asRouter(r.Host); err != nil {
		return err
	}
	lan, err := s.Router.nl.LinkByName(lanName)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "rt-"+name, lan.Attrs().Index
	if err := s.Router.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: r.Interface, PeerNamespace: netlink.NsFd(int(r.net.Fd())), PeerHardwareAddr: r.MAC}); err != nil {
		return err
	}
	if err := s.Router.setUp(attrs.Name); err != nil {
		return err
	}
	if err := r.raise(); err != nil {
		return err
	}
	if err := s.filter(ctx, r.Host); err != nil {
		return err
	}
	if err := s.lab.Internet.connect(r.Host, "to-"+s.Name+"-"+name, line, false, true); err != nil {
		return err
	}
	s.mu.Lock()
	s.routers = append(s.routers, r)
	s.mu.Unlock()
	return parallel(
		func() error { return r.waitOperUp(ctx, r.Interface) },
		func() error { return s.Router.waitOperUp(ctx, attrs.Name) })
}

// raise gives the interface its link-local address and switches it on.
func (r *Router) raise() error {
	settings := map[string]string{"net.ipv6.conf." + r.Interface + ".disable_ipv6": "0"}
	chosen := r.LinkLocal.IsValid()
	if chosen {
		settings["net.ipv6.conf."+r.Interface+".addr_gen_mode"] = "1" // none
	} else {
		r.LinkLocal = LinkLocal(r.MAC)
	}
	if err := r.sysctls(settings); err != nil {
		return err
	}
	if err := r.setUp(r.Interface); err != nil || !chosen {
		return err
	}
	return r.addAddress(r.Interface, netip.PrefixFrom(r.LinkLocal, 64))
}

// advertised lists the prefixes that the site's routers have or had.
func (s *Site) advertised() []netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.owners))
}

// adopt makes the router one of a prefix: it has an address there, the internet sends there, unless another router has been first, and
// no filter of the site minds. Prefixes stay so when they are no longer advertised; the unique local aren't routed (RFC 4193 4.1).
func (r *Router) adopt(ctx context.Context, p netip.Prefix) error {
	s := r.Site
	p = p.Masked()
	s.mu.Lock()
	owner, routers := s.owners[p], slices.Clone(s.routers)
	if owner == nil {
		s.owners[p] = r
	}
	s.mu.Unlock()
	address := p.Addr().As16()
	address[15] = 1
	if owner != nil && owner != r {
		address[15] = byte(2 + slices.Index(routers, r))
	}
	if err := r.addAddress(r.Interface, netip.PrefixFrom(netip.AddrFrom16(address), p.Bits())); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if owner != nil {
		return nil
	}
	for _, other := range routers {
		if err := s.admit(ctx, other.Host, p); err != nil {
			return err
		}
	}
	if p.Addr().IsPrivate() {
		return nil
	}
	return s.lab.Internet.route(p, r.line)
}

// RA is what the router advertises, or would if it did.
func (r *Router) RA() RA { return r.ra }

// SetRA changes what the router advertises, and starts that if it is stopped. When it returns, a first advertisement of the new kind has
// been sent to all nodes; with text of Options.Radvd, it returns at once. What is no longer in the RA isn't withdrawn, only unsaid.
func (r *Router) SetRA(ctx context.Context, ra RA) error {
	s := r.Site
	if r.Host == s.Router && s.Options.RA == nil && !s.Options.Mute {
		return fmt.Errorf("cannot change the RA of site %q: dnsmasq sends it, as Options.RA is nil", s.Name)
	}
	for _, p := range ra.Prefixes {
		if err := r.adopt(ctx, p.Prefix); err != nil {
			return fmt.Errorf("cannot advertise %q at site %q: %w", p.Prefix, s.Name, err)
		}
	}
	sent, err := r.Capture(ctx, r.Interface)
	if err != nil {
		return err
	}
	defer sent.Close()
	r.ra, r.begun = ra, true
	if err := r.advertise(ctx); err != nil {
		return fmt.Errorf("cannot advertise at site %q: %w", s.Name, err)
	}
	if ra.Radvd != "" {
		return nil
	}
	wire, err := ra.Marshal() // radvd orders options its own way, but neither they nor their times become others
	if err != nil {
		return err
	}
	if _, err := sent.Wait(ctx, func(f Frame) bool {
		got, ok := f.RA()
		if !ok || !f.Outgoing || f.SrcIP() != r.LinkLocal || f.DstIP() != AllNodes {
			return false
		}
		want, err := ParseRA(wire)
		return err == nil && got.RouterLifetime == want.RouterLifetime && got.Managed == want.Managed && got.MTU == want.MTU &&
			len(got.Prefixes) == len(want.Prefixes) && !slices.ContainsFunc(got.Prefixes, func(p PrefixInfo) bool { return !slices.Contains(want.Prefixes, p) })
	}); err != nil {
		return fmt.Errorf("cannot see %q advertise what it was told to: %w", r.Name, err)
	}
	return nil
}

// advertise has radvd, or the lab, send r.ra from now on.
func (r *Router) advertise(ctx context.Context) error {
	if r.ra.needsOurs() {
		if err := r.radvd.stop(ctx, unix.SIGKILL); err != nil {
			return err
		}
		r.radvd = nil
		if r.ours != nil {
			r.ours.stop()
		}
		var err error
		r.ours, err = r.newAdvertiser()
		return err
	}
	if r.ours != nil {
		r.ours.stop()
		r.ours = nil
	}
	path := filepath.Join(r.Site.lab.dir, "router", r.Name+".radvd")
	if err := os.WriteFile(path, []byte(r.ra.radvd(r.Interface)), 0o644); err != nil {
		return err
	}
	// It would die of an error when told to read it.
	if _, err := r.Run(ctx, "radvd", "-c", "-C", path); err != nil {
		return err
	}
	if r.radvd != nil && r.radvd.alive() == nil {
		return r.radvd.cmd.Process.Signal(unix.SIGHUP)
	}
	// The privileged half of one that was killed may hold the lock on its file for a moment longer.
	err := os.Remove(path + ".pid")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.radvd, err = r.Site.lab.spawn(r.Host, "radvd-"+r.Name, "radvd", "-n", "-m", "stderr", "-C", path, "-p", path+".pid")
	return err
}

// StartRA goes on with the last RA after StopRA or KillRA. At a muted site it begins with Options.RA, or that of an ordinary router.
func (r *Router) StartRA(ctx context.Context) error {
	switch o := r.Site.Options; {
	case r.begun:
		return r.SetRA(ctx, r.ra)
	case o.RA != nil:
		return r.SetRA(ctx, *o.RA)
	default:
		return r.SetRA(ctx, DefaultRA(o.IPv6))
	}
}

// StopRA ends the advertisements in order: the last says that this is no default router any more (RFC 4861 6.2.5).
func (r *Router) StopRA(ctx context.Context) error { return r.endRA(ctx, unix.SIGTERM) }

// KillRA ends them without a word, as a router does that loses power.
func (r *Router) KillRA(ctx context.Context) error { return r.endRA(ctx, unix.SIGKILL) }

func (r *Router) endRA(ctx context.Context, sig unix.Signal) error {
	if r.ours != nil {
		r.ours.stop()
		if r.ours = nil; sig == unix.SIGTERM {
			last := r.ra
			last.RouterLifetime = 0
			return r.sendRA(last)
		}
	}
	return r.radvd.stop(ctx, sig)
}

// SetRA changes what the site's own router advertises: see Router.
func (s *Site) SetRA(ctx context.Context, ra RA) error { return s.IPv6Router().SetRA(ctx, ra) }
