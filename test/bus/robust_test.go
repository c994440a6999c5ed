package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/dbus"
	"gangway/policy"
	"gangway/service/vnet"
)

func TestErrorsOfTheBackend(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(0)
	const failed = "org.gangway.Gangway1.Error.Failed"
	for _, test := range []struct {
		err         error
		name, about string
	}{
		{errors.New("the kernel says no"), failed, "the kernel says no"},
		{context.DeadlineExceeded, failed, "too long"},
		{fmt.Errorf("cannot start network %q: %w", "default", vnet.Errorf(vnet.SubnetConflict, "taken by wlan0")), "org.gangway.Gangway1.Error.SubnetConflict", `cannot start network "default": taken by wlan0`},
		{vnet.Errorf(vnet.InUse, "bad bytes \xff"), "org.gangway.Gangway1.Error.InUse", "bad bytes"},
		{vnet.Errorf("Novel", "of a new kind"), failed, "of a new kind"},
	} {
		f.backend.setBefore(func(context.Context, string) error { return test.err })
		if _, name, text := call(conn, networkPath, dbus.NetworkInterface+".Start"); name != test.name || !strings.Contains(text, test.about) {
			t.Errorf("%v: error %q (%s), want %q about %q", test.err, name, text, test.name, test.about)
		}
	}
	f.backend.setBefore(func(context.Context, string) error { panic("a bug") })
	for _, member := range []string{".Start", ".GetPorts"} {
		if _, name, text := call(conn, networkPath, dbus.NetworkInterface+member); name != failed || strings.Contains(text, "a bug") {
			t.Errorf("a panic in %s: error %q (%s)", member, name, text)
		}
	}
	f.backend.setBefore(nil)
	if _, name, text := call(conn, networkPath, dbus.NetworkInterface+".Start"); name != "" {
		t.Errorf("after the panic: %s %s", name, text)
	}
}

// A client that floods gets LimitExceeded; others are served, and afterwards it is, too.
func TestCallsInProgress(t *testing.T) {
	f := startServer(t, policy.Options{})
	gate := make(chan struct{})
	f.backend.setBefore(func(context.Context, string) error { <-gate; return nil })
	conn := f.client(nobody)
	var calls []*godbus.Call
	for range 80 {
		calls = append(calls, send(conn, 0, networkPath, dbus.NetworkInterface+".GetPorts"))
	}
	eventually(t, "refusals", func() bool {
		n := 0
		for _, c := range calls {
			n += len(c.Done)
		}
		return n == 80-64
	})
	if _, name, text := call(conn, networkPath, dbus.NetworkInterface+".GetLeases"); name != "" {
		t.Errorf("reading beside the flood: %s %s", name, text)
	}
	if got := time.Since(f.server.IdleSince()); got > time.Second {
		t.Errorf("idle since %s, with calls in progress", got)
	}
	close(gate)
	for _, c := range calls {
		<-c.Done
		var e godbus.Error
		if errors.As(c.Err, &e) && e.Name != "org.gangway.Gangway1.Error.LimitExceeded" {
			t.Errorf("refused with %v", e)
		}
	}
	if _, name, text := call(conn, networkPath, dbus.NetworkInterface+".GetPorts"); name != "" {
		t.Errorf("after the flood: %s %s", name, text)
	}
}

// wire encodes a method call to the destination with a body that godbus wouldn't write.
func wire(t testing.TB, destination, signature string, body []byte) []byte {
	t.Helper()
	sig, err := godbus.ParseSignature(signature)
	must(t, err)
	msg := &godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(destination),
		godbus.FieldPath:        godbus.MakeVariant(dbus.RootPath),
		godbus.FieldInterface:   godbus.MakeVariant("org.freedesktop.DBus.Properties"),
		godbus.FieldMember:      godbus.MakeVariant("GetAll"),
		godbus.FieldSignature:   godbus.MakeVariant(sig),
	}}
	var b bytes.Buffer
	must(t, msg.EncodeTo(&b, binary.LittleEndian))
	out := b.Bytes()
	binary.LittleEndian.PutUint32(out[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(out[8:], 4711)
	return append(out, body...)
}

// deep is a variant in a variant and so on, as deep as dbus-daemon lets through and godbus doesn't.
func deep() []byte {
	body := bytes.Repeat([]byte{1, 'v', 0}, 63)
	body = append(body, 2, 'a', 'y', 0)
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	return append(body, 0, 0, 0, 0) // an empty array
}

// No message of a user's ends the daemon's connection.
func TestMessagesThatGodbusCannotDecode(t *testing.T) {
	f := startServer(t, policy.Options{})
	// The control: the bus passes it on, and a plain connection of godbus's ends.
	victim := f.client(0)
	must(t, victim.BusObject().Call("org.freedesktop.DBus.RequestName", 0, "org.gangway.Gangway1.dnsmasq.victim", uint32(4)).Err)
	_, rootSocket := f.rawClient(0)
	if _, err := rootSocket.Write(wire(t, "org.gangway.Gangway1.dnsmasq.victim", "v", deep())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the control breaks", func() bool { return !victim.Connected() })

	user, socket := f.rawClient(nobody)
	refused := make(chan *godbus.Message, 8)
	user.Eavesdrop(refused)
	for _, test := range []struct {
		name, signature, want string
		body                  []byte
	}{
		{"deep", "v", "org.freedesktop.DBus.Error.InvalidArgs", deep()},
		{"long", "ay", "org.gangway.Gangway1.Error.LimitExceeded", append([]byte{0, 0, 0x20, 0}, make([]byte, 2<<20)...)},
	} {
		if _, err := socket.Write(wire(t, dbus.BusName, test.signature, test.body)); err != nil {
			t.Fatal(err)
		}
		var msg *godbus.Message
		for deadline := time.After(patience); msg == nil || msg.Type == godbus.TypeSignal; { // NameAcquired
			select {
			case msg = <-refused:
			case <-deadline:
				t.Fatalf("%s: no answer", test.name)
			}
		}
		if got := msg.Headers[godbus.FieldErrorName].Value(); got != test.want {
			t.Errorf("%s: answered %v %v, want %s", test.name, got, msg.Body, test.want)
		}
	}
	user.Eavesdrop(nil)
	if _, name, text := call(user, networkPath, dbus.NetworkInterface+".GetLeases"); name != "" || !f.conn.Connected() {
		t.Errorf("afterwards: %s %s, connected %v", name, text, f.conn.Connected())
	}
}

func TestLostBus(t *testing.T) {
	f := startServer(t, policy.Options{})
	select {
	case <-f.conn.Lost():
		t.Fatal("lost at once")
	default:
	}
	end(f.daemon.process)
	select {
	case <-f.conn.Lost():
	case <-time.After(patience):
		t.Fatal("the loss isn't noticed")
	}
	f.backend.change(func(s *vnet.Snapshot) { s.State = vnet.Offline }) // must not hang or panic
}

func TestSecondDaemon(t *testing.T) {
	f := startServer(t, policy.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := dbus.Connect(ctx, "unix:path=/nonexistent/socket;"+f.address)
	must(t, err)
	defer conn.Close()
	backend := newBackend()
	defer backend.close()
	second := dbus.New(dbus.Options{Conn: conn, Backend: backend, Policy: f.checker})
	must(t, second.Start())
	defer second.Close()
	if err := second.RequestName(ctx); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second daemon takes the name: %v", err)
	}
}

func TestNoReplyExpected(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(0)
	messages := make(chan *godbus.Message, 8)
	send(conn, godbus.FlagNoReplyExpected, networkPath, dbus.NetworkInterface+".Stop")
	send(conn, godbus.FlagNoReplyExpected, networkPath, dbus.NetworkInterface+".Explode")
	eventually(t, "the command is carried out", func() bool { return len(f.backend.carriedOut()) == 1 })
	conn.Eavesdrop(messages)
	send(conn, godbus.FlagNoReplyExpected, networkPath, dbus.NetworkInterface+".Explode")
	send(conn, 0, networkPath, "org.freedesktop.DBus.Peer.Ping")
	select {
	case msg := <-messages:
		if msg.Type != godbus.TypeMethodReply {
			t.Errorf("answered nevertheless: %v", msg)
		}
	case <-time.After(patience):
		t.Fatal("no answer to the ping")
	}
}

func TestTools(t *testing.T) {
	f := startServer(t, policy.Options{})
	run := func(name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+f.address, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	busctl := func(args ...string) string {
		t.Helper()
		return run("busctl", append([]string{"--address=" + f.address}, args...)...)
	}
	for _, test := range []struct {
		out  string
		want []string
	}{
		{busctl("tree", dbus.BusName), []string{"/org/gangway/Gangway1/network/default", "/org/gangway/Gangway1/uplink/wlan0"}},
		{busctl("introspect", dbus.BusName, string(networkPath)), []string{".Attach", "sa{sv}", `"192.168.231.0/24"`, "emits-change", ".LeaseAdded"}},
		{busctl("call", dbus.BusName, string(dbus.RootPath), dbus.ManagerInterface, "NetworkByName", "s", "default"), []string{`o "/org/gangway/Gangway1/network/default"`}},
		{busctl("call", dbus.BusName, string(dbus.RootPath), dbus.ManagerInterface, "CreateNetwork", "sa{sv}", "lab", "2", "mtu", "u", "1400", "dhcp-hosts", "aa{sv}", "1", "2", "mac", "s", "02:00:00:00:00:01", "hostname", "s", "vm"), []string{`o "/org/gangway/Gangway1/network/lab"`}},
		{busctl("get-property", dbus.BusName, string(dbus.RootPath), dbus.ManagerInterface, "Version", "Features", "Networks"), []string{`s "1.2.3"`, "as 0", "ao 2"}},
		{busctl("--json=short", "get-property", dbus.BusName, string(dbus.RootPath+"/network/lab"), dbus.NetworkInterface, "Settings"), []string{`"mtu":{"type":"u","data":1400}`, `"hostname":{"type":"s","data":"vm"}`}},
		{run("gdbus", "introspect", "--system", "--dest", dbus.BusName, "--object-path", "/", "--recurse"), []string{"readonly s Subnet = '192.168.231.0/24'", "readonly s Kind = 'wifi'", "readonly ao Networks"}},
		{run("gdbus", "call", "--system", "--dest", dbus.BusName, "--object-path", string(dbus.RootPath), "--method", "org.freedesktop.DBus.ObjectManager.GetManagedObjects"), []string{"'ipv4-method': <'nat'>"}},
	} {
		for _, want := range test.want {
			if !strings.Contains(test.out, want) {
				t.Errorf("%q isn't in:\n%s", want, test.out)
			}
		}
	}
}
