// Package discover is compiled into Vault in the place of go-discover, which finds the
// members of its clusters and for that has the SDKs of a dozen clouds. The Vault of
// these tests has no cluster, and takes half the time to compile.
package discover

import (
	"errors"
	"log"
)

var errNone = errors.New("this Vault is not made for clusters")

// Config, and the names that follow, are those that Vault uses.
type Config map[string]string

func (Config) String() string { return "" }

func Parse(string) (Config, error) { return nil, errNone }

type Provider any

var Providers map[string]Provider

type Discover struct{}

func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, errNone }

type Option struct{}

func WithProviders(map[string]Provider) Option { return Option{} }

func New(...Option) (*Discover, error) { return &Discover{}, nil }
