"""Errors that end a step: one plain sentence with the cause first, then what to do."""

from __future__ import annotations

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

# Meanings of AWS's error codes, with advice.
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
NOT_FOUND_CODES = ("ResourceNotFound", "ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "404")
NOT_FOUND_TEXTS = ("could not find", "not found", "does not exist")


class WorkflowError(Exception):
    """A step can't continue; the message is meant for the user."""


class JobFailedError(WorkflowError):
    """A job or an endpoint failed; the message contains its FailureReason."""


def one_line(error: BaseException | str) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split())


def explain(error: BotoCoreError | ClientError) -> str:
    """Return an error of boto3 as one sentence with the cause first."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"There are no AWS credentials: {CREDENTIALS}"
    if isinstance(error, NoRegionError):
        return "No AWS region is set: name one with --region or AWS_REGION."
    if isinstance(error, ProfileNotFound):
        return f"{error}: `aws configure list-profiles` names those there are."
    if isinstance(error, EndpointConnectionError):
        return f"AWS can't be reached: {error} Check the network and --region."
    if isinstance(error, ClientError):
        code = code_of(error) or "no code"
        return one_line(f"{REFUSALS.get(code, '')} {error.operation_name} was refused ({code}): {_message(error)}")
    return one_line(error)


def explain_system(error: OSError) -> str:
    """Return an error of the operating system as one sentence with the cause first."""
    reason = error.strerror or one_line(error) or type(error).__name__
    place = f": {error.filename}" if error.filename else ""
    return f"{reason}{place}. Correct that, or name another folder with --folder."


def code_of(error: ClientError) -> str:
    """Return the code of a refusal, for example ``ValidationException``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_not_found(error: ClientError) -> bool:
    """Return True if a service refuses because the thing doesn't exist."""
    is_said = any(text in _message(error).lower() for text in NOT_FOUND_TEXTS)
    return code_of(error) in NOT_FOUND_CODES or (code_of(error) == "ValidationException" and is_said)


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))
