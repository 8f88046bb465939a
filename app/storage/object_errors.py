"""Explain the errors of obstore to the operator.

obstore's own messages contain whole requests, with signatures in their URLs, so none of their text is passed on.
"""

import re

from app.errors import StoreMisconfigured, StoreUnavailable

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# Where obstore looks for the credentials of a machine, if the environment has none.
_METADATA_SERVICE = re.compile(r"169\.254\.\d+\.\d+|metadata\.google\.internal|metadata/identity|latest/api/token")

_NO_BUCKET = "there is no such bucket or container. Check the name, and the endpoint and the region in the environment."
_DENIED = (
    "the credentials have no permission for this. Allow them to read, write, list and delete what is below this URL."
)
_INVALID = "the credentials are not valid. Check the keys or the token in the environment of this process."
_EXPIRED = "the credentials have expired. Renew the token in the environment, and restart this process."
_SKEWED = "the clock of this machine is wrong. Synchronise it: signed requests are valid for minutes only."
_NO_CREDENTIALS = (
    "no credentials were found. Set the vendor's variables (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or "
    "give this machine a role."
)
_OTHER_REGION = "the bucket is in another region. Set the region in the environment, such as AWS_REGION."

# Reasons for the operator to act on, by the error code in the response.
_MISCONFIGURED = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "ContainerNotFound": _NO_BUCKET,
    "ContainerBeingDeleted": _NO_BUCKET,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "AuthorizationFailure": _DENIED,
    "AuthorizationPermissionMismatch": _DENIED,
    "InsufficientAccountPermissions": _DENIED,
    "PublicAccessNotPermitted": _DENIED,
    "InvalidAccessKeyId": _INVALID,
    "SignatureDoesNotMatch": _INVALID,
    "AuthenticationFailed": _INVALID,
    "InvalidAuthenticationInfo": _INVALID,
    "NoAuthenticationInformation": _INVALID,
    "InvalidToken": _INVALID,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEWED,
    "RequestExpired": _SKEWED,
    "PermanentRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
}
# Reasons by a part of obstore's message, for errors without a code.
_PHRASES = {
    "Received redirect without LOCATION": _OTHER_REGION,
    "The specified bucket does not exist": _NO_BUCKET,
    "Request date header too old": _SKEWED,
    "Signature not valid in the specified time frame": _EXPIRED,
    "InvalidPath": "it contains an object whose name is not a valid key. Remove or rename the object.",
}
_STATUSES = {
    401: _INVALID,
    403: _DENIED,
}


def is_missing_blob(error: BaseException) -> bool:
    """Return True if the bucket answered that there is no object, rather than no bucket."""
    return isinstance(error, FileNotFoundError) and _misconfiguration(str(error)) is None


def is_refusal(error: BaseException) -> bool:
    """Return True if the bucket answered with a status 4xx."""
    status = _STATUS.search(str(error))
    return status is not None and status[1][0] == "4"


def explain(url: str, error: BaseException) -> StoreUnavailable:
    """Return the error of the store at `url`, with a message that repeats no part of the request."""
    text = str(error)
    if reason := _misconfiguration(text):
        return StoreMisconfigured(f"{url} cannot be used: {reason}")
    return StoreUnavailable(f"{url} is not available: {_outage(text)} Try again later.")


def _misconfiguration(text: str) -> str | None:
    code = _CODE.search(text)
    for phrase, reason in _PHRASES.items():
        if phrase in text:
            return reason
    if code and code[1] in _MISCONFIGURED:
        return _MISCONFIGURED[code[1]]
    if _METADATA_SERVICE.search(text):
        return _NO_CREDENTIALS
    status = _STATUS.search(text)
    return _STATUSES.get(int(status[1])) if status else None


def _outage(text: str) -> str:
    status = _STATUS.search(text)
    if status and status[1] in ("429", "503"):
        return f"it limits the rate of requests or is overloaded (status {status[1]})."
    if status:
        return f"it answered with the status {status[1]}."
    if "kind: Timeout" in text or "TimedOut" in text:
        return "it did not answer in time."
    if "dns error" in text:
        return "the name of its host cannot be resolved."
    if "kind: Connect" in text:
        return "no connection can be made."
    return "the connection failed, or the response was not valid."
