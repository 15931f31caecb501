// What Traefik compiles against instead of Amazon's client, most of whose minutes
// of compilation it doesn't use. It answers nothing.
module github.com/aws/aws-sdk-go-v2/service/ec2

go 1.26.8
