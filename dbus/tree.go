package dbus

import (
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// tree is what a snapshot looks like on the bus. It is never changed once made, so that what
// is answered from one tree is consistent.
type tree struct {
	snapshot *vnet.Snapshot
	objects  map[godbus.ObjectPath]*object
}

// object is an object on the bus, or a node that only leads to others.
type object struct {
	path godbus.ObjectPath
	// iface is its interface of ours, "" for a node that only leads to others.
	iface string
	// name is the network's name or the uplink's interface.
	name       string
	properties map[string]godbus.Variant
}

// has tells whether the object has the interface.
func (o *object) has(iface string) bool { return slices.Contains(o.interfaces(), iface) }

// interfaces lists its interfaces, ours first.
func (o *object) interfaces() []string {
	list := []string{introspectable, peer}
	if o.iface != "" {
		list = []string{o.iface, properties, introspectable, peer}
	}
	if o.path == RootPath {
		list = append(list, objectManager)
	}
	return list
}

func newTree(s *vnet.Snapshot, constant map[string]godbus.Variant) *tree {
	t := &tree{snapshot: s, objects: map[godbus.ObjectPath]*object{}}
	for _, path := range []godbus.ObjectPath{"/", "/org", "/org/gangway", networksPath, uplinksPath} {
		t.objects[path] = &object{path: path}
	}
	t.objects[RootPath] = &object{path: RootPath, iface: ManagerInterface, properties: managerProperties(s, constant)}
	for i := range s.Networks {
		n := &s.Networks[i]
		path := NetworkPath(n.Name)
		t.objects[path] = &object{path: path, iface: NetworkInterface, name: n.Name, properties: networkProperties(s, n)}
	}
	for i := range s.Uplinks {
		u := &s.Uplinks[i]
		path := UplinkPath(u.Interface)
		t.objects[path] = &object{path: path, iface: UplinkInterface, name: u.Interface, properties: uplinkProperties(u)}
	}
	return t
}

// children lists the labels of the nodes right below path, sorted.
func (t *tree) children(path godbus.ObjectPath) []string {
	prefix := string(path) + "/"
	if path == "/" {
		prefix = "/"
	}
	var labels []string
	for p := range t.objects {
		label, ok := strings.CutPrefix(string(p), prefix)
		if ok && label != "" && !strings.Contains(label, "/") {
			labels = append(labels, label)
		}
	}
	slices.Sort(labels)
	return labels
}

// published lists the objects with an interface of ours, sorted by path.
func (t *tree) published() []*object {
	var list []*object
	for _, o := range t.objects {
		if o.iface != "" {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *object) int { return strings.Compare(string(a.path), string(b.path)) })
	return list
}
