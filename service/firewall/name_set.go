package firewall

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// nameSet is an anonymous set of interface names, or of several in a row, that a single rule refers to. It
// comes and goes with the rule.
type nameSet struct {
	id      uint32 // in the transaction
	width   int    // names in a row
	members [][]string
}

const (
	// nameLength is what the kernel loads an interface's name into a register as, padded by zeros.
	nameLength = unix.IFNAMSIZ
	// anonymousName is a pattern by which the kernel makes up a name.
	anonymousName = "__set%d"
	// typeName is nft's number for the type of interface names, of which several are joined by six bits
	// each (nftables, include/datatype.h, TYPE_IFNAME, TYPE_BITS). The kernel doesn't care.
	typeName, typeBits = 41, 6
	// chunk is how many members one message has: an attribute has 64 KiB at most.
	chunk = 1000
)

// hostEndian is libnftnl's user data of a set whose members have the host's byte order (libnftnl/udata.h,
// NFTNL_UDATA_SET_KEYBYTEORDER; nftables, include/datatype.h, BYTEORDER_HOST_ENDIAN).
var hostEndian = append([]byte{0, 4}, binary.NativeEndian.AppendUint32(nil, 1)...)

// bytesOf is a member as the kernel has it.
func bytesOf(names []string) []byte {
	b := make([]byte, nameLength*len(names))
	for i, name := range names {
		copy(b[nameLength*i:][:nameLength-1], name)
	}
	return b
}

// put adds what makes the set.
func (s nameSet) put(b *batch, of ownTable) {
	kind := uint32(0)
	for range s.width {
		kind = kind<<typeBits | typeName
	}
	attributes := []attribute{
		text(unix.NFTA_SET_TABLE, of.name), text(unix.NFTA_SET_NAME, anonymousName), number(unix.NFTA_SET_ID, s.id),
		number(unix.NFTA_SET_FLAGS, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT),
		number(unix.NFTA_SET_KEY_TYPE, kind), number(unix.NFTA_SET_KEY_LEN, uint32(nameLength*s.width)),
	}
	if s.width == 1 { // so that nft prints what it is
		attributes = append(attributes, attribute{unix.NFTA_SET_USERDATA, hostEndian})
	}
	b.add(of.family, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attributes...)
	for part := range slices.Chunk(s.members, chunk) {
		var elements []attribute
		for _, names := range part {
			elements = append(elements, nested(unix.NFTA_LIST_ELEM, nested(unix.NFTA_SET_ELEM_KEY, attribute{unix.NFTA_DATA_VALUE, bytesOf(names)})))
		}
		b.add(of.family, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			text(unix.NFTA_SET_ELEM_LIST_TABLE, of.name), text(unix.NFTA_SET_ELEM_LIST_SET, anonymousName),
			number(unix.NFTA_SET_ELEM_LIST_SET_ID, s.id), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, elements...))
	}
}

// in is the condition that what was loaded is a member, notIn that it isn't.
func (s nameSet) in() []expression { return []expression{step("lookup", s.lookup()...)} }
func (s nameSet) notIn() []expression {
	return []expression{step("lookup", s.lookup(number(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV))...)}
}

func (s nameSet) lookup(more ...attribute) []attribute {
	return append([]attribute{text(unix.NFTA_LOOKUP_SET, anonymousName), number(unix.NFTA_LOOKUP_SET_ID, s.id),
		number(unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1)}, more...)
}

// single makes members of one name each.
func single(names []string) (members [][]string) {
	for _, name := range names {
		members = append(members, []string{name})
	}
	return members
}
