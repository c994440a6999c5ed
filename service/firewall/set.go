package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// setType is the type of all our sets.
const setType = "hash:net,iface"

// hashFull is IPSET_ERR_HASH_FULL of linux/netfilter/ipset/ip_set.h: no room for the element.
const hashFull = nl.IPSET_ERR_TYPE_SPECIFIC

// familyOfSet tells of which family's addresses a set is; one that isn't ours counts as IPv4.
func familyOfSet(name string) uint8 {
	if slices.Contains(plan.Sets6(), name) {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// setNames are the names of our sets, those of IPv6 where the kernel has it.
func setNames(ipv6 bool) []string {
	if ipv6 {
		return append(plan.Sets(), plan.Sets6()...)
	}
	return plan.Sets()
}

// The requests are put together here, and not by netlink's IpsetAdd and its like: those
// panic on errors that aren't errno, and write to the standard logger about attributes that
// they don't know.

func (c *conn) ipset(command int, flags int, attributes ...*nl.RtAttr) ([][]byte, error) {
	attributes = append([]*nl.RtAttr{nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL))}, attributes...)
	messages, err := c.do(unix.NFNL_SUBSYS_IPSET, command, flags, attributes...)
	var errno syscall.Errno
	if errors.As(err, &errno) && errno >= nl.IPSET_ERR_PRIVATE {
		return nil, nl.IPSetError(errno)
	}
	return messages, err
}

func setName(name string) *nl.RtAttr {
	return nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name))
}

// checkSetType asks the kernel whether it has the type of our sets; this loads its module.
func (c *conn) checkSetType() error {
	_, err := c.ipset(nl.IPSET_CMD_TYPE, 0,
		nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(setType)),
		nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(unix.AF_INET)))
	if err != nil {
		return fmt.Errorf("cannot use sets of type %q (kernel modules ip_set and ip_set_hash_netiface): %w", setType, err)
	}
	return nil
}

// createSet creates an empty set of our type and the name's family; one that exists is left as it is.
func (c *conn) createSet(name string) error {
	_, err := c.ipset(nl.IPSET_CMD_CREATE, unix.NLM_F_ACK|unix.NLM_F_CREATE,
		setName(name),
		nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(setType)),
		nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(0)), // the oldest has all that we use
		nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(familyOfSet(name))),
		nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil))
	if err != nil {
		return fmt.Errorf("cannot create set %q: %w", name, err)
	}
	return nil
}

// flushSet deletes all entries; it does nothing if there is no such set.
func (c *conn) flushSet(name string) error {
	_, err := c.ipset(nl.IPSET_CMD_FLUSH, unix.NLM_F_ACK, setName(name))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot flush set %q: %w", name, err)
	}
	return nil
}

// destroySet deletes a set; it does nothing if there is none.
func (c *conn) destroySet(name string) error {
	_, err := c.ipset(nl.IPSET_CMD_DESTROY, unix.NLM_F_ACK, setName(name))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot destroy set %q: %w", name, err)
	}
	return nil
}

// addEntry adds an entry, or does nothing if it is there.
func (c *conn) addEntry(set string, e vnet.SetEntry) error {
	err := c.changeEntry(nl.IPSET_CMD_ADD, set, e)
	switch {
	case errors.Is(err, nl.IPSetError(hashFull)):
		return fmt.Errorf("cannot add %s,%s to set %q: it is full, or has the subnet with 64 interfaces, the most that the kernel stores: %w",
			e.Prefix, e.Interface, set, err)
	case err != nil:
		return fmt.Errorf("cannot add %s,%s to set %q: %w", e.Prefix, e.Interface, set, err)
	}
	return nil
}

// deleteEntry deletes an entry, or does nothing if it or the set isn't there.
func (c *conn) deleteEntry(set string, e vnet.SetEntry) error {
	err := c.changeEntry(nl.IPSET_CMD_DEL, set, e)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot delete %s,%s from set %q: %w", e.Prefix, e.Interface, set, err)
	}
	return nil
}

// changeEntry sends the request without NLM_F_EXCL: what is so already is no error.
func (c *conn) changeEntry(command int, set string, e vnet.SetEntry) error {
	ipv6 := familyOfSet(set) == unix.AF_INET6
	switch {
	case !ipv6 && (!e.Prefix.IsValid() || !e.Prefix.Addr().Is4() || e.Prefix.Bits() == 0):
		return errors.New("not an IPv4 prefix of 1 to 32 bits")
	case ipv6 && (!e.Prefix.IsValid() || !e.Prefix.Addr().Is6() || e.Prefix.Addr().Is4In6() || e.Prefix.Bits() == 0):
		return errors.New("not an IPv6 prefix of 1 to 128 bits")
	case e.Interface == "" || len(e.Interface) > vnet.MaxInterfaceName || strings.ContainsRune(e.Interface, 0):
		return errors.New("not an interface name")
	}
	kind := nl.IPSET_ATTR_IPADDR_IPV4
	if ipv6 {
		kind = nl.IPSET_ATTR_IPADDR_IPV6
	}
	ip := nl.NewRtAttr(nl.IPSET_ATTR_IP|int(nl.NLA_F_NESTED), nil)
	ip.AddRtAttr(kind|int(nl.NLA_F_NET_BYTEORDER), e.Prefix.Masked().Addr().AsSlice())
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(ip)
	data.AddRtAttr(nl.IPSET_ATTR_CIDR, nl.Uint8Attr(uint8(e.Prefix.Bits())))
	data.AddRtAttr(nl.IPSET_ATTR_IFACE, nl.ZeroTerminated(e.Interface))
	// The kernel insists on a line number where one could be wanted for its complaint.
	data.AddRtAttr(nl.IPSET_ATTR_LINENO|int(nl.NLA_F_NET_BYTEORDER), make([]byte, 4))
	_, err := c.ipset(command, unix.NLM_F_ACK, setName(set), data)
	return err
}

// listSet returns the entries of a set, and false when there is no such set.
func (c *conn) listSet(name string) ([]vnet.SetEntry, bool, error) {
	// The kernel reports a missing set to a dump only with NLM_F_ACK.
	messages, err := c.ipset(nl.IPSET_CMD_LIST, unix.NLM_F_ACK|unix.NLM_F_DUMP, setName(name))
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot list set %q: %w", name, err)
	}
	entries := []vnet.SetEntry{}
	for _, m := range messages {
		for kind, value := range attributes(m) {
			switch kind {
			case nl.IPSET_ATTR_TYPENAME:
				if got := unix.ByteSliceToString(value); got != setType {
					return nil, false, fmt.Errorf("cannot use set %q: it is of type %q and not ours", name, got)
				}
			case nl.IPSET_ATTR_ADT:
				for _, entry := range attributes(value) {
					if e, ok := parseEntry(entry); ok {
						entries = append(entries, e)
					}
				}
			}
		}
	}
	return entries, true, nil
}

func parseEntry(b []byte) (e vnet.SetEntry, ok bool) {
	var address netip.Addr
	bits := -1
	for kind, value := range attributes(b) {
		switch kind {
		case nl.IPSET_ATTR_IP:
			for kind, value := range attributes(value) {
				if kind == nl.IPSET_ATTR_IPADDR_IPV4 || kind == nl.IPSET_ATTR_IPADDR_IPV6 {
					address, _ = netip.AddrFromSlice(value)
				}
			}
		case nl.IPSET_ATTR_CIDR:
			if len(value) == 1 {
				bits = int(value[0])
			}
		case nl.IPSET_ATTR_IFACE:
			e.Interface = unix.ByteSliceToString(value)
		}
	}
	if !address.IsValid() || e.Interface == "" {
		return e, false
	}
	if bits < 0 { // the kernel leaves out nothing, but that is what no length would mean
		bits = address.BitLen()
	}
	e.Prefix = netip.PrefixFrom(address, bits)
	return e, e.Prefix.IsValid()
}
