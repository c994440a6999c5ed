// Package policy decides who may do what: the table of polkit actions by D-Bus member, and
// the Checker that asks polkit.
//
// It denies by default. It doesn't know what the methods do, doesn't check arguments
// and holds no lock while polkit asks somebody for a password.
package policy
