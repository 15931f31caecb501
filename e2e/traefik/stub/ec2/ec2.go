// Package ec2 has the types of requests for instances.
package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Client asks nobody.
type Client struct{}

// NewFromConfig returns one.
func NewFromConfig(any) *Client { return &Client{} }

// DescribeInstancesInput asks for instances.
type DescribeInstancesInput struct{ InstanceIds []string }

// DescribeInstancesOutput has them.
type DescribeInstancesOutput struct{ Reservations []types.Reservation }

// DescribeInstancesPaginator has no pages.
type DescribeInstancesPaginator struct{}

// NewDescribeInstancesPaginator returns one.
func NewDescribeInstancesPaginator(*Client, *DescribeInstancesInput) *DescribeInstancesPaginator {
	return &DescribeInstancesPaginator{}
}

// HasMorePages is false.
func (*DescribeInstancesPaginator) HasMorePages() bool { return false }

// NextPage is empty.
func (*DescribeInstancesPaginator) NextPage(context.Context) (*DescribeInstancesOutput, error) {
	return &DescribeInstancesOutput{}, nil
}
