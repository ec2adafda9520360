"""What stops a step: one plain sentence with the cause first, then what to do."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

CREDENTIALS = "run `aws configure`, or set AWS_PROFILE; with --target local or --dry-run none are needed."

# What the codes of AWS's refusals mean to someone who doesn't know them.
REFUSALS = {
    "NoSuchBucket": "The bucket doesn't exist: name another one with --bucket.",
    "404": "The bucket or object doesn't exist: name another bucket with --bucket, or run `python -m workflow data`.",
    "ExpiredToken": f"The credentials have expired: {CREDENTIALS}",
    "ExpiredTokenException": f"The credentials have expired: {CREDENTIALS}",
    "UnrecognizedClientException": f"AWS doesn't know these credentials: {CREDENTIALS}",
    "InvalidClientTokenId": f"AWS doesn't know these credentials: {CREDENTIALS}",
    "ResourceLimitExceeded": "The account's quota doesn't allow it: take another instance type or fewer instances, or "
    "ask for more in Service Quotas.",
}


class WorkflowError(Exception):
    """A step can't go on; the message is meant for the user."""


class JobFailedError(WorkflowError):
    """A job or an endpoint ended in failure; the message holds its FailureReason."""


def explain(error: BotoCoreError | ClientError) -> str:
    """Return what boto3 has to say as one sentence with the cause first."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"There are no AWS credentials: {CREDENTIALS}"
    if isinstance(error, NoRegionError):
        return "No AWS region is set: name one with --region or AWS_REGION."
    if isinstance(error, ProfileNotFound):
        return f"{error}: `aws configure list-profiles` names those there are."
    if isinstance(error, EndpointConnectionError):
        return f"AWS can't be reached: {error} Check the network and --region."
    if isinstance(error, ClientError):
        return _refusal(error)
    return " ".join(str(error).split())


def explain_system(error: OSError) -> str:
    """Return what the system has to say as one sentence with the cause first."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    place = f": {error.filename}" if error.filename else ""
    return f"{reason}{place}. Correct that, or name another folder with --folder."


def code_of(error: ClientError) -> str:
    """Return the code of a refusal, for example ``ValidationException``."""
    return str(_details(error).get("Code", ""))


def is_not_found(error: ClientError) -> bool:
    """Tell whether a refusal says that the thing isn't there."""
    message = str(_details(error).get("Message", "")).lower()
    named = code_of(error) in ("ResourceNotFound", "ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "404")
    told = "could not find" in message or "not found" in message or "does not exist" in message
    return named or (code_of(error) == "ValidationException" and told)


def _refusal(error: ClientError) -> str:
    details = _details(error)
    what = (
        f"{error.operation_name} was refused ({details.get('Code', 'no code')}): {details.get('Message', '')}".strip()
    )
    hint = REFUSALS.get(code_of(error))
    return " ".join((f"{hint} {what}" if hint else what).split())


def _details(error: ClientError) -> dict[str, Any]:
    details: dict[str, Any] = error.response.get("Error", {})
    return details
