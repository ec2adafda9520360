"""The check that boto3 makes before it sends a request: the same here, by botocore's model of the services."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import botocore.session
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator

from workflow.names import LONGEST, is_name


@lru_cache
def _operation(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


def check(service: str, operation: str, request: dict[str, Any]) -> None:
    """Raise what boto3 raises if a request isn't as the service's model has it.

    Raises
    ------
    botocore.exceptions.ParamValidationError
        If members are missing, unknown, or of a wrong type or length.
    """
    shape = _operation(service, operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ParamValidationError(report=f"{operation}: {report.generate_report()}")


def check_name(operation: str, name: str) -> None:
    """Refuse a name that SageMaker would refuse."""
    if not is_name(name):
        raise refusal(operation, f"expected a name of at most {LONGEST} letters, digits and hyphens, found {name!r}.")


def refusal(operation: str, message: str, code: str = "ValidationException") -> ClientError:
    """Return the error that boto3 raises when the service refuses a request."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)
