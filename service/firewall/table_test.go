package firewall

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Whatever happens between the look at a table and its deletion, the deletion leaves it alone.
func TestDeleteTableRace(t *testing.T) {
	for _, test := range []struct {
		name, meanwhile string
		want            error // on a kernel that takes any generation
	}{
		{"rule in a base chain", "iptables-nft -t nat -A POSTROUTING -j ACCEPT", unix.EBUSY},
		{"rule in the last base chain", "iptables-nft -t nat -A OUTPUT -j ACCEPT", unix.EBUSY},
		{"chain", "iptables-nft -t nat -N OTHERS", unix.EBUSY},
		{"base chain", "nft add chain ip nat others '{ type nat hook input priority 5; }'", unix.EBUSY},
		{"set", "nft add set ip nat others '{ type ipv4_addr; }'", unix.EBUSY},
		{"counter", "nft add counter ip nat others", unix.EBUSY},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := newNamespace(t, "host")
			host.enter()
			f := newFirewall(t, "iptables-nft")
			host.empty("nat")
			table, _, err := f.netlink.table("nat")
			must(t, err)
			generation, err := f.generation()
			must(t, err)
			chains, unused, err := f.netlink.unused("nat", table.handle)
			must(t, err)
			if !unused || len(chains) != 4 {
				t.Fatalf("unused: %v, chains %q", unused, chains)
			}
			host.sh("%s", test.meanwhile)
			before := nftRuleset(host)
			unchanged := func(what string) {
				t.Helper()
				if d := cmp.Diff(before, nftRuleset(host)); d != "" {
					t.Fatalf("%s (-before +after):\n%s", what, d)
				}
				if _, err := f.generation(); err != nil {
					t.Fatalf("the socket after %s: %v", what, err)
				}
			}
			if err := f.netlink.deleteTable("nat", chains, generation); !errors.Is(err, unix.ERESTART) {
				t.Errorf("with the old generation: %v", err)
			}
			unchanged("refused for the generation")
			if err := f.netlink.deleteTable("nat", chains, 0); !errors.Is(err, test.want) {
				t.Errorf("with any generation: %v, want %v", err, test.want)
			}
			unchanged("refused for what is in it")
			if deleted, err := f.netlink.deleteUnused("nat", table.handle); deleted || err != nil {
				t.Errorf("deleted: %v, %v", deleted, err)
			}
			unchanged("looked at again")
			host.run("nft", "flush", "ruleset")
			host.empty("nat")
			if deleted, err := f.netlink.deleteUnused("nat", table.handle); deleted || err != nil {
				t.Errorf("another table of that name deleted: %v, %v", deleted, err)
			}
			table, _, err = f.netlink.table("nat")
			must(t, err)
			if deleted, err := f.netlink.deleteUnused("nat", table.handle); !deleted || err != nil {
				t.Errorf("deleted: %v, %v", deleted, err)
			}
			if got := host.tables(); len(got) > 0 {
				t.Errorf("tables: %q", got)
			}
		})
	}
}

// What counts as somebody else's in a table without rules.
func TestTouchedTable(t *testing.T) {
	for _, test := range []struct{ name, commands string }{
		{"policy", "nft add chain ip nat OUTPUT '{ policy drop; }'"},
		{"dormant", "nft add table ip nat '{ flags dormant; }'"},
		{"priority", "nft delete chain ip nat OUTPUT; nft add chain ip nat OUTPUT '{ type nat hook output priority 7; }'"},
		{"hook", "nft delete chain ip nat OUTPUT; nft add chain ip nat OUTPUT '{ type nat hook prerouting priority -100; }'"},
		{"type", "nft delete chain ip nat OUTPUT; nft add chain ip nat OUTPUT '{ type filter hook output priority -100; }'"},
		{"comment", `nft delete chain ip nat OUTPUT; nft add chain ip nat OUTPUT '{ type nat hook output priority -100; comment "mine"; }'`},
		{"not a base chain", "nft delete chain ip nat OUTPUT; nft add chain ip nat OUTPUT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := newNamespace(t, "host")
			host.enter()
			f := newFirewall(t, "iptables-nft")
			host.empty("nat")
			table, _, err := f.netlink.table("nat")
			must(t, err)
			host.sh("%s", test.commands)
			before := nftRuleset(host)
			if deleted, err := f.netlink.deleteUnused("nat", table.handle); deleted || err != nil {
				t.Errorf("deleted: %v, %v", deleted, err)
			}
			if d := cmp.Diff(before, nftRuleset(host)); d != "" {
				t.Errorf("ruleset (-before +after):\n%s", d)
			}
		})
	}
}

// After a batch that was refused as a whole no answer is left that a later question could take for its own.
func TestBatchAnswersAreRead(t *testing.T) {
	newNamespace(t, "host").enter()
	f := newFirewall(t, "iptables-nft")
	handle := f.netlink.sockets[unix.NETLINK_NETFILTER]
	handle.Seq += 10
	first, last := handle.Seq-1, handle.Seq
	for _, sequence := range []uint32{first, last} { // two complaints, as when the kernel can't commit
		b := appendMessage(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_REQUEST, sequence, unix.AF_INET, 0,
			attribute{unix.NFTA_TABLE_NAME, []byte("nothing\x00")})
		must(t, unix.Sendto(handle.Socket.GetFd(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	}
	if _, err := f.netlink.batchAnswer(first, last); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error is %v", err)
	}
	if n, _, err := unix.Recvfrom(handle.Socket.GetFd(), make([]byte, 4096), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("left in the socket: %d bytes, %v", n, err)
	}
}
