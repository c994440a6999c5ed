module gangway

go 1.25.0

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/Wifx/gonetworkmanager/v3 v3.2.0
	github.com/coreos/go-iptables v0.8.0
	github.com/coreos/go-systemd/v22 v22.6.0
	github.com/godbus/dbus/v5 v5.2.2
	github.com/google/go-cmp v0.7.0
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	go.uber.org/goleak v1.3.0
	golang.org/x/sys v0.40.0
	pgregory.net/rapid v1.2.0
)
