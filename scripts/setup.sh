#!/bin/sh
# Installs what building, testing and the demo need and this machine lacks, by apt-get or
# dnf, through sudo when not run as root. Does nothing, and asks for nothing, when all is there.
#
# Go itself is not installed: distributions' versions differ too much (see go.mod).
set -eu

# Each line: what it is for, then the package on Debian and its like, then on Fedora and its like
# ("-" where there is no such package).
packages='
bus            dbus                dbus-daemon
authorisation  polkitd             polkit
uplinks        network-manager     NetworkManager
guests-dhcp    dnsmasq-base        dnsmasq
firewall       iptables            iptables-nft
sets           ipset               ipset
test-filter    nftables            nftables
test-netns     iproute2            iproute
test-flows     conntrack           conntrack-tools
test-guest     dhcpcd-base         dhcpcd
test-guest     udhcpc              busybox
test-ping      iputils-ping        iputils
test-router    radvd               radvd
test-dns       bind9-dnsutils      bind-utils
test-client    libglib2.0-bin      glib2
test-client    systemd             systemd
test-procps    procps              procps-ng
test-xml       libxml2-utils       libxml2
build          meson               meson
build          ninja-build         ninja-build
'

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "root is needed for: $*; there is no sudo"
	fi
}

column() { echo "$packages" | awk -v n="$1" 'NF == 3 && $n != "-" { print $n }'; }

# present PACKAGE: it is installed, or something that provides it is.
present_deb() { dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed$'; }
present_rpm() { rpm -q --whatprovides "$1" >/dev/null 2>&1; }

missing() {
	for package in $(column "$2"); do
		"$1" "$package" || echo "$package"
	done | sort -u
}

# The packages must not start services behind the back of whoever wants to see a demo: on a machine
# without NetworkManager, starting one could cut its network. Debian's way to say so is a file;
# it is ours only while the installation runs.
policy=/usr/sbin/policy-rc.d
mark='# Gangway setup: start no services (to be removed)'

no_services() {
	if [ -e "$policy" ] && ! grep -qxF "$mark" "$policy"; then
		return # whoever put it there has decided
	fi
	printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root tee "$policy" >/dev/null
	as_root chmod 755 "$policy"
	trap services_again EXIT
	trap 'exit 130' INT TERM HUP
}

services_again() {
	if [ -e "$policy" ] && grep -qxF "$mark" "$policy"; then
		as_root rm -f "$policy"
	fi
}

# What was just installed must not start with the next boot either.
leave_disabled() {
	[ -d /run/systemd/system ] || return 0
	for pair in network-manager:NetworkManager.service radvd:radvd.service; do
		case " $1 " in
		*" ${pair%%:*} "*)
			say "leaving ${pair#*:} disabled; enable it yourself if you want it"
			as_root systemctl disable "${pair#*:}" >/dev/null 2>&1 || say "cannot disable ${pair#*:}"
			;;
		esac
	done
}

debian() {
	list=$(missing present_deb 2 | tr '\n' ' ')
	list=${list% }
	[ -n "$list" ] || return 0
	say "installing $list"
	no_services
	as_root apt-get -q update
	# shellcheck disable=SC2086 # a list of words
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove install $list </dev/null
	services_again
	leave_disabled "$list"
	list=$(missing present_deb 2 | tr '\n' ' ')
	[ -z "$list" ] || die "still missing: $list"
}

fedora() {
	list=$(missing present_rpm 3 | tr '\n' ' ')
	list=${list% }
	[ -n "$list" ] || return 0
	say "installing $list"
	# shellcheck disable=SC2086 # a list of words
	as_root dnf -y --setopt=install_weak_deps=False install $list </dev/null
}

# version_at_least HAVE WANT, each as 1.25.0
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

check_go() {
	want=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
	command -v "${GO:-go}" >/dev/null || die "Go $want or later is needed: https://go.dev/doc/install"
	have=$("${GO:-go}" env GOVERSION | sed 's/^go//; s/ .*//')
	version_at_least "$have" "$want" || die "Go $want or later is needed, this is $have: https://go.dev/doc/install"
}

check_go
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
	debian
elif command -v dnf >/dev/null && command -v rpm >/dev/null; then
	fedora
else
	say "neither apt-get nor dnf here; these are needed, under whatever names: $(column 2 | sort -u | tr '\n' ' ')"
fi
