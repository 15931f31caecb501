// What Traefik compiles against instead of lego, its ACME client, whose hundreds
// of DNS providers are half of Traefik. No certificate can be had with it.
module github.com/go-acme/lego/v5

go 1.26.8
