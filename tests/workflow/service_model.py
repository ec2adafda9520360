"""botocore's model of the services as a judge of requests: shapes, lengths, choices and patterns."""

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

SERVICES = ("sagemaker", "sagemaker-runtime", "s3", "logs")


def _operations() -> dict[str, Any]:
    session = botocore.session.get_session()
    models = [session.get_service_model(name) for name in SERVICES]
    return {name: model.operation_model(name) for model in reversed(models) for name in model.operation_names}


OPERATIONS = _operations()


def faults(operation: str, request: dict[str, Any]) -> list[str]:
    """Return what the service would not take; boto3 itself looks at shapes and lengths only."""
    shape = OPERATIONS[operation].input_shape
    report = ParamValidator().validate(request, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(_details(shape, request, operation))


def _details(shape: Any, value: Any, place: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name in value.keys() & shape.members.keys():
            yield from _details(shape.members[name], value[name], f"{place}.{name}")
    elif shape.type_name == "list":
        for number, member in enumerate(value):
            yield from _details(shape.member, member, f"{place}[{number}]")
    elif shape.type_name == "map":
        for name, member in value.items():
            yield from _details(shape.key, name, f"{place} key")
            yield from _details(shape.value, member, f"{place}.{name}")
    elif shape.type_name == "string":
        yield from _text_faults(shape, value, place)
    size = value if shape.type_name in ("integer", "long") else len(value) if hasattr(value, "__len__") else 0
    if size > shape.metadata.get("max", size):
        yield f"{place}: {size}, at most {shape.metadata['max']}"


def _text_faults(shape: Any, value: str, place: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield f"{place}: {value!r} is none of {shape.enum}"
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_translated(pattern), value):
        yield f"{place}: {value!r} doesn't match {pattern}"


def _translated(pattern: str) -> str:
    """Return a Java pattern as Python's; the classes of letters that it lacks are here any visible one or space."""
    known = pattern.replace(r"\p{ASCII}", r"[\x00-\x7f]").replace(r"\z", r"\Z")
    return re.sub(r"\\p\{[A-Za-z]+\}", r"\\w\\s!-~", known)
