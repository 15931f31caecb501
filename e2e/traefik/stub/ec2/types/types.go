// Package types has the types of instances.
package types

// InstanceStateName is what an instance does.
type InstanceStateName string

// InstanceStateNameRunning is one that runs.
const InstanceStateNameRunning InstanceStateName = "running"

// InstanceState is an instance's.
type InstanceState struct{ Name InstanceStateName }

// Instance is a machine.
type Instance struct {
	InstanceId, PrivateIpAddress *string
	State                        *InstanceState
}

// Reservation has instances.
type Reservation struct{ Instances []Instance }
