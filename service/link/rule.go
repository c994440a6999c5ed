package link

import (
	"errors"
	"fmt"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func (c *conn) addRule(r vnet.Rule) error {
	req, err := ruleRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r)
	if err == nil {
		err = c.do(req)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot %s: %w", plan.AddRule{Rule: r}, err)
	}
	return nil
}

func (c *conn) deleteRule(r vnet.Rule) error {
	req, err := ruleRequest(unix.RTM_DELRULE, 0, r)
	if err == nil {
		err = c.do(req)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !isUnsupported(err) {
		return fmt.Errorf("cannot %s: %w", plan.DeleteRule{Rule: r}, err)
	}
	return nil
}

// ruleRequest refuses what the kernel would take for a wildcard when it deletes.
func ruleRequest(kind, flags int, r vnet.Rule) (*nl.NetlinkRequest, error) {
	switch {
	case r.Foreign:
		return nil, errors.New("it has selectors that we don't know")
	case r.Protocol == 0 || r.Priority == 0:
		return nil, errors.New("it has no protocol or no priority, so it isn't ours")
	}
	req := nl.NewNetlinkRequest(kind, flags)
	head := make(rawData, sizeofFibRuleHdr)
	head[0] = unix.AF_INET
	if r.IPv6 {
		head[0] = unix.AF_INET6
	}
	head[7] = unix.FR_ACT_TO_TBL
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.FRA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	req.AddData(nl.NewRtAttr(unix.FRA_TABLE, nl.Uint32Attr(r.Table)))
	req.AddData(nl.NewRtAttr(unix.FRA_PROTOCOL, nl.Uint8Attr(r.Protocol)))
	if r.IIF != "" {
		req.AddData(nl.NewRtAttr(unix.FRA_IIFNAME, nl.ZeroTerminated(r.IIF)))
	}
	if r.SuppressPrefixLength >= 0 {
		req.AddData(nl.NewRtAttr(unix.FRA_SUPPRESS_PREFIXLEN, nl.Uint32Attr(uint32(r.SuppressPrefixLength))))
	}
	return req, nil
}
