package dbus

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"

	godbus "github.com/godbus/dbus/v5"

	"gangway/policy"
	"gangway/service/vnet"
)

// method is how a member of the contract is served: one of read, fetch, or check and run.
type method struct {
	// read answers from the call's tree alone and doesn't block.
	read func(*call) ([]any, error)
	// fetch changes nothing, but may take its time.
	fetch func(*call) ([]any, error)
	// check looks for what is wrong with a command before anybody is asked for a password,
	// and fills in the details of the question. run carries it out, and checks again.
	check func(*call) error
	run   func(*call) ([]any, error)
}

// methods serves the contract: every method in it is here, and nothing else.
var methods = map[string]map[string]method{
	ManagerInterface: managerMethods,
	NetworkInterface: networkMethods,
	UplinkInterface:  uplinkMethods,
	introspectable:   introspectableMethods,
	properties:       propertiesMethods,
	objectManager:    objectManagerMethods,
	peer:             peerMethods,
}

// call is a request that has found its method; its arguments have the contract's types.
type call struct {
	*request
	ctx    context.Context
	server *Server
	tree   *tree
	object *object
	// uid is the caller's, once a command has been authorised.
	uid     uint32
	details map[string]string
}

func (c *call) text(i int) string { return c.args[i].(string) }

func (c *call) values(i int) map[string]any { return plainValues(c.args[i].(variants)) }

// serve answers a request. It runs in a goroutine of the request's own.
func (s *Server) serve(r *request) {
	s.activity.begin()
	defer s.activity.end()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a method", "interface", r.iface, "member", r.member, "panic", p, "stack", string(debug.Stack()))
			r.fail(vnet.Errorf(vnet.Failed, "internal error in %s; the log has the details", r.member))
		}
	}()
	if err := s.limits.calls.begin(r.sender); err != nil {
		r.fail(err)
		return
	}
	defer s.limits.calls.end(r.sender)
	m, iface, done := s.serveRead(r)
	if done {
		return
	}
	if err := s.limits.slow.begin(r.sender); err != nil {
		r.fail(err)
		return
	}
	defer s.limits.slow.end(r.sender)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	c := &call{request: r, ctx: ctx, server: s, details: map[string]string{}}
	var body []any
	var err error
	if m.fetch != nil {
		body, err = s.fetch(c, m, iface)
	} else {
		body, err = s.command(c, m, iface)
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.reply(body)
}

// serveRead answers the request if the tree is all it takes. The reply is sent before another
// tree's signals are: a client that got an old value is told of the new one afterwards.
func (s *Server) serveRead(r *request) (m method, iface string, done bool) {
	s.order.RLock()
	defer s.order.RUnlock()
	o, iface, m, err := s.tree.find(r)
	if err == nil && m.read == nil {
		return m, iface, false
	}
	var body []any
	if err == nil {
		body, err = m.read(&call{request: r, ctx: s.ctx, server: s, tree: s.tree, object: o})
	}
	if err != nil {
		r.fail(err)
	} else {
		r.reply(body)
	}
	return m, iface, true
}

// find finds what serves a request and checks its arguments' types.
func (t *tree) find(r *request) (*object, string, method, error) {
	o, ok := t.objects[r.path]
	if !ok {
		// Peer is every path's (D-Bus specification, "org.freedesktop.DBus.Peer").
		if m, ok := peerMethods[r.member]; ok && r.iface == "" {
			return &object{path: r.path}, peer, m, nil
		}
		return nil, "", method{}, fault(errUnknownObject, "there is no object %s", r.path)
	}
	iface := r.iface
	if iface == "" {
		// A call may leave the interface out (D-Bus specification, "Method Calls").
		i := slices.IndexFunc(o.interfaces(), func(name string) bool { _, ok := methods[name][r.member]; return ok })
		if i < 0 {
			return nil, "", method{}, fault(errUnknownMethod, "object %s has no method %q", r.path, r.member)
		}
		iface = o.interfaces()[i]
	}
	if !o.has(iface) {
		return nil, "", method{}, fault(errUnknownInterface, "object %s has no interface %q", r.path, iface)
	}
	m, ok := methods[iface][r.member]
	spec, specified := contract[iface].methods[r.member]
	if !ok || !specified {
		return nil, "", method{}, fault(errUnknownMethod, "interface %q has no method %q", iface, r.member)
	}
	if r.signature != spec.in {
		return nil, "", method{}, fault(errInvalidArgs, "%s.%s takes arguments of type %q, got %q", iface, r.member, spec.in, r.signature)
	}
	return o, iface, m, nil
}

// refresh gives the call the present tree; the object may have gone since.
func (s *Server) refresh(c *call, iface string) error {
	c.tree = s.current()
	o, ok := c.tree.objects[c.path]
	switch {
	case ok:
		c.object = o
	case iface == peer:
		c.object = &object{path: c.path}
	default:
		return fault(errUnknownObject, "there is no object %s", c.path)
	}
	return nil
}

func (s *Server) fetch(c *call, m method, iface string) ([]any, error) {
	if err := s.refresh(c, iface); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, s.timeout)
	defer cancel()
	c.ctx = ctx
	return m.fetch(c)
}

// command checks, authorises, checks again, runs, and waits until the bus shows the change.
func (s *Server) command(c *call, m method, iface string) ([]any, error) {
	action, ok := policy.For(iface, c.member)
	if !ok || m.check == nil || m.run == nil {
		return nil, fault(errAccessDenied, "%s.%s has no rule for who may call it", iface, c.member)
	}
	if err := s.refresh(c, iface); err != nil {
		return nil, err
	}
	if err := m.check(c); err != nil {
		return nil, err
	}
	uid, err := s.policy.Check(c.ctx, policy.Request{Sender: c.sender, Action: action, Details: c.details,
		Interactive: c.flags&godbus.FlagAllowInteractiveAuthorization != 0})
	if err != nil {
		return nil, err
	}
	c.uid = uid
	// A prompt may have taken minutes.
	if err := s.refresh(c, iface); err != nil {
		return nil, err
	}
	if err := m.check(c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, s.timeout)
	defer cancel()
	c.ctx = ctx
	body, err := m.run(c)
	if err != nil {
		return nil, err
	}
	if err := s.awaitPublished(ctx); err != nil {
		return nil, fmt.Errorf("done, but the bus doesn't show it yet: %w", err)
	}
	s.log.Info("command done", "member", c.member, "network", c.details["network"], "interface", c.details["interface"], "uid", uid)
	return body, nil
}
