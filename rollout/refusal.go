package rollout

import apierrors "k8s.io/apimachinery/pkg/api/errors"

// RefusalCause classifies why the API server refused to create a pod, such as
// [QuotaExceeded] or [PodSecurity], and says what usually mends it. It returns
// false where err is no such refusal, or is one for want of rights.
func RefusalCause(err error) (cause Cause, remedy string, refused bool) {
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) && !apierrors.IsInternalError(err) && !apierrors.IsBadRequest(err) {
		return "", "", false
	}
	cause, _ = classify(refusalPatterns, "FailedCreate", err.Error())
	if (cause == PodRefused || cause == ControllerForbidden) && apierrors.IsForbidden(err) {
		return "", "", false
	}
	return cause, cause.remedy(), true
}
