// Package ssm has the types of requests for managed instances.
package ssm

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// Client asks nobody.
type Client struct{}

// NewFromConfig returns one.
func NewFromConfig(any) *Client { return &Client{} }

// DescribeInstanceInformationInput asks for instances.
type DescribeInstanceInformationInput struct {
	Filters []types.InstanceInformationStringFilter
}

// DescribeInstanceInformationOutput has them.
type DescribeInstanceInformationOutput struct {
	InstanceInformationList []types.InstanceInformation
}

// DescribeInstanceInformationPaginator has no pages.
type DescribeInstanceInformationPaginator struct{}

// NewDescribeInstanceInformationPaginator returns one.
func NewDescribeInstanceInformationPaginator(*Client, *DescribeInstanceInformationInput) *DescribeInstanceInformationPaginator {
	return &DescribeInstanceInformationPaginator{}
}

// HasMorePages is false.
func (*DescribeInstanceInformationPaginator) HasMorePages() bool { return false }

// NextPage is empty.
func (*DescribeInstanceInformationPaginator) NextPage(context.Context) (*DescribeInstanceInformationOutput, error) {
	return &DescribeInstanceInformationOutput{}, nil
}
