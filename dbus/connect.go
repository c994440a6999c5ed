package dbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// systemBus is where the system bus listens unless DBUS_SYSTEM_BUS_ADDRESS says otherwise
// (D-Bus specification, "Well-known Message Bus Instances"; /var/run may not be mounted yet).
const systemBus = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"

// loginTimeout bounds connecting, authentication and Hello.
const loginTimeout = 25 * time.Second

// Conn is a connection to the bus without file descriptor passing: a connection that negotiated
// it would have to take whatever descriptors a peer sends. Signals are delivered in order.
type Conn struct {
	*godbus.Conn
	board *board
}

// Lost returns a channel that is closed when the connection is: the bus went away, or Close was called.
func (c *Conn) Lost() <-chan struct{} { return c.Context().Done() }

// Connect connects to the bus at the address, a list as in the D-Bus specification ("Server
// Addresses") of which the unix transport with path or abstract is known. For "", it is the
// value of DBUS_SYSTEM_BUS_ADDRESS, else the system bus.
func Connect(ctx context.Context, address string) (*Conn, error) {
	if address == "" {
		address = os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	}
	if address == "" {
		address = systemBus
	}
	names, err := socketNames(address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to bus %q: %w", address, err)
	}
	var errs []error
	for _, name := range names {
		conn, err := connectSocket(ctx, name)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("cannot connect to bus %q: %w", address, errors.Join(errs...))
}

func connectSocket(ctx context.Context, name string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	// Ending ctx ends the login, too: reads and writes fail at once.
	stop := context.AfterFunc(ctx, func() { socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	board, frames := new(board), newFrames(socket)
	conn, err := godbus.NewConn(frames, godbus.WithHandler(board),
		godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()),
		godbus.WithIncomingInterceptor(routePeer))
	if err != nil {
		socket.Close()
		return nil, err
	}
	frames.reject = func(sender string, serial uint32, name, text string) {
		sendError(conn, sender, serial, name, text)
	}
	if err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil {
		err = conn.Hello()
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot log in at %q: %w", name, err)
	}
	return &Conn{conn, board}, nil
}

// socketNames returns the socket names, in net.Dial's form, of an address list.
func socketNames(list string) ([]string, error) {
	var (
		names []string
		errs  []error
	)
	for _, address := range strings.Split(list, ";") {
		if address == "" {
			continue
		}
		name, err := socketName(address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, errors.Join(append(errs, errors.New("no address that can be used"))...)
	}
	return names, nil
}

func socketName(address string) (string, error) {
	transport, rest, ok := strings.Cut(address, ":")
	if !ok || transport != "unix" {
		return "", fmt.Errorf("address %q: only the unix transport is known", address)
	}
	var name string
	for _, pair := range strings.Split(rest, ",") {
		key, escaped, _ := strings.Cut(pair, "=")
		if key != "path" && key != "abstract" {
			continue // guid, for instance
		}
		value, err := godbus.UnescapeBusAddressValue(escaped)
		switch {
		case err != nil:
			return "", fmt.Errorf("address %q: %w", address, err)
		case value == "" || strings.IndexByte(value, 0) >= 0:
			return "", fmt.Errorf("address %q: bad %s", address, key)
		case name != "":
			return "", fmt.Errorf("address %q: more than one of path and abstract", address)
		case key == "abstract":
			name = "@" + value // net's mark of the abstract namespace
		case value[0] == '@':
			return "", fmt.Errorf("address %q: the path is not absolute", address)
		default:
			name = value
		}
	}
	if name == "" {
		return "", fmt.Errorf("address %q: neither path nor abstract", address)
	}
	return name, nil
}
