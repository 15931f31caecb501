package cloudkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	"github.com/googleapis/gax-go/v2/apierror"
	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-dev/fairlead/stages"
)

// Error is a service that did not open a data key. It satisfies [stages.IsPermanent]
// if asking again can't help. It repeats neither credentials nor what was to be
// decrypted.
type Error struct {
	// Service is the one that was asked, such as "AWS KMS".
	Service string
	// Code is the service's name for its refusal, such as "AccessDeniedException",
	// or the status of HTTP; empty if there was no answer.
	Code string
	// Reason is what the service said, or why there was no answer.
	Reason string
	// Remedy says what to do.
	Remedy string

	err error // why there was no answer, or the class of the refusal
}

// Error says what was asked, how it answered and what to do.
func (e *Error) Error() string {
	answer := "gave no answer"
	if e.Code != "" {
		answer = "answered " + e.Code
	}
	return fmt.Sprintf("cloudkms: %s %s: %s; %s", e.Service, answer, e.Reason, e.Remedy)
}

// Unwrap returns why there was no answer, or [stages.ErrInvalid] for a refusal that
// stays.
func (e *Error) Unwrap() error { return e.err }

// failed prefers the cause of a context that has ended.
func failed(ctx context.Context, e *Error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cloudkms: asking %s: %w", e.Service, context.Cause(ctx))
	}
	return e
}

// verdict is what an answer means.
type verdict int

const (
	unavailable verdict = iota
	denied
	refused
)

// answered is an error of a service that was reached. Permission is what the
// credentials need.
func answered(service, code, reason string, v verdict, permission string) *Error {
	if reason == "" {
		reason = "it gives no reason"
	}
	e := &Error{Service: service, Code: code, Reason: reason}
	switch v {
	case denied:
		e.err, e.Remedy = stages.ErrInvalid, "check that the credentials are valid and may "+permission
	case refused:
		e.err, e.Remedy = stages.ErrInvalid, "check that the key, and the version of it that encrypted the file, exist and may still decrypt; otherwise encrypt the file anew"
	default:
		e.Remedy = "try again once the service works"
	}
	return e
}

// silent is a service that was not reached.
func silent(service string, err error) *Error {
	return &Error{Service: service, Reason: oneLine(err.Error()), Remedy: "check the file's recipient, the credentials, the network and the certificate authorities", err: err}
}

func verdictOf(httpStatus int) verdict {
	switch {
	case httpStatus == http.StatusUnauthorized, httpStatus == http.StatusForbidden:
		return denied
	case httpStatus == http.StatusRequestTimeout, httpStatus == http.StatusPreconditionFailed, httpStatus == http.StatusTooManyRequests, httpStatus >= 500:
		return unavailable
	default:
		return refused
	}
}

// awsDenials are the codes of KMS and STS for credentials that are wrong or may not.
var awsDenials = []string{
	"AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId",
	"InvalidSignatureException", "MissingAuthenticationTokenException", "SignatureDoesNotMatch", "UnrecognizedClientException",
}

func awsFailure(err error) *Error {
	service, permission := "AWS KMS", "use kms:Decrypt on the key"
	if op, ok := errors.AsType[*smithy.OperationError](err); ok && op.Service() == "STS" {
		service, permission = "AWS STS", "use sts:AssumeRole on the role"
	}
	answer, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return silent(service, err)
	}
	v := refused
	switch {
	case retry.NewStandard().IsErrorRetryable(err):
		v = unavailable
	case slices.Contains(awsDenials, answer.ErrorCode()):
		v = denied
	}
	// The lines that follow the first one of a wrong signature hold session tokens.
	reason, _, _ := strings.Cut(answer.ErrorMessage(), "\n")
	return answered(service, answer.ErrorCode(), oneLine(reason), v, permission)
}

func gcpFailure(err error) *Error {
	const service, permission = "Google Cloud KMS", "use the key: roles/cloudkms.cryptoKeyDecrypter"
	answer, ok := errors.AsType[*apierror.APIError](err)
	if !ok {
		return silent(service, err)
	}
	code, v := answer.GRPCStatus().Code(), refused
	switch code {
	case codes.Unavailable:
		return silent(service, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		v = denied
	case codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown:
		v = unavailable
	}
	return answered(service, code.String(), oneLine(status.Convert(answer).Message()), v, permission)
}

func azureFailure(err error) *Error {
	const service = "Azure Key Vault"
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return silent(service, err)
	}
	var body struct{ Error struct{ Message string } }
	if data, err := runtime.Payload(answer.RawResponse); err == nil {
		_ = json.Unmarshal(data, &body) // a proxy may answer something else
	}
	code := strings.TrimSpace(strconv.Itoa(answer.StatusCode) + " " + answer.ErrorCode)
	return answered(service, code, oneLine(body.Error.Message), verdictOf(answer.StatusCode), "decrypt with the key: keys/decrypt")
}

func vaultFailure(endpoint string, err error) *Error {
	const service = "Vault"
	answer, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		return silent(service, err)
	}
	reason := oneLine(strings.Join(answer.Errors, "; "))
	return answered(service, strconv.Itoa(answer.StatusCode), reason, verdictOf(answer.StatusCode), "update "+endpoint)
}

// oneLine returns text without line ends.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
