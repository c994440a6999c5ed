package dbus

import (
	"encoding/xml"
	"fmt"
	"strings"

	"gangway/data"
)

// contract is what the XML says of the interfaces, by name: ours and the standard ones.
var contract = parseContract(data.ManagerXML, data.NetworkXML, data.UplinkXML, standardXML)

type interfaceSpec struct {
	name string
	// xml is the text from <interface> to </interface>, as it stands in the file.
	xml        string
	methods    map[string]methodSpec
	properties map[string]string // signatures
	signals    map[string]string // signatures
}

type methodSpec struct{ in, out string }

// parseContract panics on text that it can't read: the text is part of the program.
func parseContract(texts ...string) map[string]*interfaceSpec {
	type arg struct {
		Type      string `xml:"type,attr"`
		Direction string `xml:"direction,attr"`
	}
	type member struct {
		Name string `xml:"name,attr"`
		Type string `xml:"type,attr"`
		Args []arg  `xml:"arg"`
	}
	var node struct {
		Interfaces []struct {
			Name       string   `xml:"name,attr"`
			Methods    []member `xml:"method"`
			Properties []member `xml:"property"`
			Signals    []member `xml:"signal"`
		} `xml:"interface"`
	}
	specs := map[string]*interfaceSpec{}
	for _, text := range texts {
		node.Interfaces = nil
		if err := xml.Unmarshal([]byte(text), &node); err != nil {
			panic(fmt.Sprintf("cannot parse contract: %v", err))
		}
		for _, i := range node.Interfaces {
			spec := &interfaceSpec{name: i.Name, xml: interfaceText(text, i.Name),
				methods: map[string]methodSpec{}, properties: map[string]string{}, signals: map[string]string{}}
			for _, m := range i.Methods {
				var s methodSpec
				for _, a := range m.Args {
					if a.Direction == "out" {
						s.out += a.Type
					} else {
						s.in += a.Type
					}
				}
				spec.methods[m.Name] = s
			}
			for _, p := range i.Properties {
				spec.properties[p.Name] = p.Type
			}
			for _, s := range i.Signals {
				var signature string
				for _, a := range s.Args {
					signature += a.Type
				}
				spec.signals[s.Name] = signature
			}
			specs[i.Name] = spec
		}
	}
	return specs
}

func interfaceText(text, name string) string {
	const end = "</interface>"
	from := strings.Index(text, `<interface name="`+name+`"`)
	if from < 0 {
		panic(fmt.Sprintf("cannot find interface %q in contract", name))
	}
	length := strings.Index(text[from:], end)
	return text[from : from+length+len(end)]
}
