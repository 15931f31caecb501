// Package types has the types of managed instances.
package types

// InstanceInformation is about a machine.
type InstanceInformation struct{ InstanceId, IPAddress *string }

// InstanceInformationStringFilter chooses some.
type InstanceInformationStringFilter struct {
	Key    *string
	Values []string
}
