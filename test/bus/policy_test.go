package bus

import (
	"context"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gangway/dbus"
	"gangway/policy"
	"gangway/service/vnet"
)

type variants = map[string]godbus.Variant

// commands has a valid call of every member that needs an action.
var commands = map[string]struct {
	path godbus.ObjectPath
	args []any
	// done is what the backend then has carried out, "" for what this version doesn't support.
	done string
}{
	dbus.ManagerInterface + ".CreateNetwork": {dbus.RootPath, []any{"lab", variants{"dhcp": godbus.MakeVariant(false)}}, "create lab"},
	dbus.NetworkInterface + ".Start":         {networkPath, nil, "start default"},
	dbus.NetworkInterface + ".Stop":          {networkPath, nil, "stop default"},
	dbus.NetworkInterface + ".Delete":        {networkPath, nil, "delete default"},
	dbus.NetworkInterface + ".Update":        {networkPath, []any{variants{"mtu": godbus.MakeVariant(uint32(1400))}}, "update default"},
	dbus.NetworkInterface + ".Attach":        {networkPath, []any{"veth7", variants{}}, "attach veth7"},
	dbus.NetworkInterface + ".Detach":        {networkPath, []any{"veth7"}, "detach veth7"},
	dbus.NetworkInterface + ".OpenTap":       {networkPath, []any{variants{"vnet-hdr": godbus.MakeVariant(true)}}, ""},
	dbus.NetworkInterface + ".AddForward":    {networkPath, []any{variants{"listen-port": godbus.MakeVariant(uint16(80))}}, ""},
	dbus.NetworkInterface + ".RemoveForward": {networkPath, []any{"1"}, ""},
	dbus.UplinkInterface + ".SetSharing":     {uplinkPath, []any{"bridge"}, "share wlan0 bridge"},
}

const (
	denied       = "org.freedesktop.DBus.Error.AccessDenied"
	needsPrompt  = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	notSupported = "org.gangway.Gangway1.Error.NotSupported"
)

// try calls every command and compares the errors and what the backend did.
func (f *fixture) try(t *testing.T, uid int, flags godbus.Flags, want func(member string) string) {
	t.Helper()
	conn := f.client(uid)
	for _, member := range policy.Members() {
		command, ok := commands[member]
		if !ok {
			t.Errorf("no call of %s to try", member)
			continue
		}
		f.backend.change(func(s *vnet.Snapshot) { s.Networks = []vnet.NetworkState{network("default")} })
		eventually(t, "the network is back", func() bool {
			_, name, _ := call(conn, networkPath, dbus.NetworkInterface+".GetLeases")
			_, other, _ := call(conn, dbus.RootPath, dbus.ManagerInterface+".NetworkByName", "lab")
			return name == "" && other != ""
		})
		before := len(f.backend.carriedOut())
		_, name, text := callFlags(conn, flags, command.path, member, command.args...)
		expected := want(member)
		if expected == "" && command.done == "" {
			expected = notSupported
		}
		if name != expected {
			t.Errorf("%s as uid %d: error %q (%s), want %q", member, uid, name, text, expected)
		}
		var did []string
		if expected == "" {
			did = []string{command.done}
		}
		if d := cmp.Diff(did, append([]string(nil), f.backend.carriedOut()[before:]...)); d != "" {
			t.Errorf("%s as uid %d: carried out (-want +got):\n%s", member, uid, d)
		}
	}
}

func always(name string) func(string) string { return func(string) string { return name } }

func TestWithoutPolkitd(t *testing.T) {
	f := startServer(t, policy.Options{})
	f.try(t, 0, 0, always(""))
	f.try(t, nobody, 0, always(denied))
	f.try(t, nobody, godbus.FlagAllowInteractiveAuthorization, always(denied))
}

func TestPolkitDecides(t *testing.T) {
	f := startServer(t, policy.Options{Timeout: patience})
	p := f.startPolkit("")
	f.try(t, 0, 0, always(""))
	// By default, somebody has to be asked, and there is no agent to do it.
	f.try(t, nobody, 0, always(needsPrompt))
	f.try(t, nobody, godbus.FlagAllowInteractiveAuthorization, always(denied))
	p.setRules(refuse)
	f.try(t, 0, 0, always(""))
	f.try(t, nobody, 0, always(denied))
	for _, action := range policy.Actions() {
		p.setRules(allow(action) + refuse)
		f.try(t, nobody, 0, func(member string) string {
			dot := strings.LastIndexByte(member, '.')
			if a, _ := policy.For(member[:dot], member[dot+1:]); a == action {
				return ""
			}
			return denied
		})
	}
}

// A rule sees the details, and so can give away one network.
func TestRulesSeeDetails(t *testing.T) {
	f := startServer(t, policy.Options{Timeout: patience})
	f.startPolkit(`polkit.addRule(function(action, subject) {
		if (action.lookup("network") == "default" && (!action.lookup("interface") || action.lookup("interface") == "veth7")) return polkit.Result.YES;
		return polkit.Result.NO; });`)
	f.try(t, nobody, 0, func(member string) string {
		if strings.HasSuffix(member, ".CreateNetwork") || strings.HasSuffix(member, ".SetSharing") {
			return denied
		}
		return ""
	})
}

func TestPolkitdThatHangs(t *testing.T) {
	f := startServer(t, policy.Options{Timeout: 50 * time.Millisecond, PromptTimeout: 100 * time.Millisecond})
	p := f.startPolkit(allow(policy.Actions()...))
	must(t, p.process.Process.Signal(unix.SIGSTOP))
	f.try(t, nobody, 0, always(denied))
	f.try(t, nobody, godbus.FlagAllowInteractiveAuthorization, always(denied))
	f.try(t, 0, 0, always(""))
}

// One user's questions don't take room from another's.
func TestQuestionsInProgress(t *testing.T) {
	f := startServer(t, policy.Options{Timeout: patience})
	p := f.startPolkit(allow(policy.Actions()...))
	must(t, p.process.Process.Signal(unix.SIGSTOP))
	conn, other := f.client(nobody), f.client(1)
	var calls []*godbus.Call
	for range policy.MaxQuestions + 8 {
		calls = append(calls, send(conn, 0, networkPath, dbus.NetworkInterface+".Start"))
	}
	foreign := send(other, 0, networkPath, dbus.NetworkInterface+".Start")
	if _, name, text := call(f.client(0), networkPath, dbus.NetworkInterface+".Stop"); name != "" {
		t.Errorf("root can't get through: %s %s", name, text)
	}
	// The refusals come while polkitd stands still.
	eventually(t, "eight refusals", func() bool {
		n := 0
		for _, c := range calls {
			n += len(c.Done)
		}
		return n == 8
	})
	must(t, p.process.Process.Signal(unix.SIGCONT))
	counts := map[string]int{}
	for _, c := range calls {
		<-c.Done
		if c.Err == nil {
			counts["done"]++
		} else {
			counts[c.Err.(godbus.Error).Name]++
		}
	}
	want := map[string]int{"done": policy.MaxQuestions, "org.gangway.Gangway1.Error.LimitExceeded": 8}
	if d := cmp.Diff(want, counts); d != "" {
		t.Errorf("answers (-want +got):\n%s", d)
	}
	if <-foreign.Done; foreign.Err != nil {
		t.Errorf("another user: %v", foreign.Err)
	}
}

// What is wrong with the arguments is said before anybody is asked.
func TestBadArgumentsComeBeforeTheQuestion(t *testing.T) {
	f := startServer(t, policy.Options{})
	f.startPolkit(refuse)
	conn := f.client(nobody)
	const invalid = "org.gangway.Gangway1.Error.InvalidSetting"
	value := func(v any) godbus.Variant { return godbus.MakeVariant(v) }
	for _, test := range []struct {
		path        godbus.ObjectPath
		member      string
		args        []any
		name, about string
	}{
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"default", variants{}}, "org.gangway.Gangway1.Error.NetworkExists", "default"},
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"lab", variants{"colour": value("red")}}, invalid, "colour"},
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"lab", variants{"ipv4-subnet": value("8.8.8.0/24")}}, invalid, "ipv4-subnet"},
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"lab", variants{"ipv6-method": value("nat")}}, invalid, "ipv6-method"},
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"lab", variants{"ipv6-prefix": value("2001:db8::/65")}}, invalid, "ipv6-prefix"},
		{networkPath, dbus.NetworkInterface + ".Update", []any{variants{"mtu": value(int32(1400))}}, invalid, "mtu"},
		{networkPath, dbus.NetworkInterface + ".Update", []any{variants{"mtu": value(value(uint32(1400)))}}, invalid, "mtu"},
		{networkPath, dbus.NetworkInterface + ".Update", []any{variants{"dhcp-hosts": value([]variants{{"mac": value(uint32(1))}})}}, invalid, "dhcp-hosts"},
		{networkPath, dbus.NetworkInterface + ".Attach", []any{"veth7", variants{"speed": value("full")}}, invalid, "speed"},
		{networkPath, dbus.NetworkInterface + ".Detach", []any{"-veth7"}, invalid, "ifname"},
		{networkPath, dbus.NetworkInterface + ".OpenTap", []any{variants{"vnet-hdr": value("yes")}}, invalid, "vnet-hdr"},
		{networkPath, dbus.NetworkInterface + ".OpenTap", []any{variants{"mac": value("01:00:5e:00:00:01")}}, invalid, "mac"},
		{networkPath, dbus.NetworkInterface + ".AddForward", []any{variants{"protocol": value("icmp")}}, invalid, "protocol"},
		{networkPath, dbus.NetworkInterface + ".AddForward", []any{variants{"listen-port": value(uint16(0))}}, invalid, "listen-port"},
		{uplinkPath, dbus.UplinkInterface + ".SetSharing", []any{"sometimes"}, invalid, "mode"},
	} {
		_, name, text := call(conn, test.path, test.member, test.args...)
		if name != test.name || !strings.Contains(text, test.about) {
			t.Errorf("%s%v: error %q (%s), want %q about %q", test.member, test.args, name, text, test.name, test.about)
		}
	}
	if done := f.backend.carriedOut(); len(done) > 0 {
		t.Errorf("carried out: %q", done)
	}
}

// Who owns a name, and who may send to it, is the bus's to decide, by our policy.
func TestBusPolicy(t *testing.T) {
	d := startDaemon(t)
	root, user := d.client(0), d.client(nobody)
	request := func(conn *godbus.Conn, name string) error {
		return conn.BusObject().Call("org.freedesktop.DBus.RequestName", 0, name, uint32(4)).Err
	}
	names := []string{dbus.BusName, "org.gangway.Gangway1.dnsmasq.x1", "org.gangway.Gangway1.dnsmasq"}
	for _, name := range names {
		if err := request(user, name); err == nil {
			t.Errorf("a user may own %s", name)
		}
		if err := request(root, name); err != nil {
			t.Errorf("root can't own %s: %v", name, err)
		}
	}
	// A connection of its own for dnsmasq, as in life.
	dnsmasq := d.client(0)
	const own = "org.gangway.Gangway1.dnsmasq.x2"
	must(t, request(dnsmasq, own))
	must(t, dnsmasq.Export(new(dnsmasqObject), "/x", own))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := root.Object(own, "/x").CallWithContext(ctx, own+".SetServers", 0).Err; err != nil {
		t.Errorf("root can't call dnsmasq: %v", err)
	}
	err := user.Object(own, "/x").CallWithContext(ctx, own+".SetServers", 0).Err
	if e, ok := err.(godbus.Error); !ok || e.Name != denied {
		t.Errorf("a user calls dnsmasq: %v", err)
	}
	if err := user.Object(own, "/x").CallWithContext(ctx, "org.freedesktop.DBus.Properties.Set", 0).Err; err == nil || err.(godbus.Error).Name != denied {
		t.Errorf("a user sets dnsmasq's properties: %v", err)
	}
}

type dnsmasqObject struct{}

func (*dnsmasqObject) SetServers() *godbus.Error { return nil }
