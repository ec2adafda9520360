"""InvokeEndpoint."""

from __future__ import annotations

from typing import Any


def invoke_endpoint(
    endpoint: str, body: bytes | str, *, content_type: str, accept: str, target_model: str | None = None
) -> dict[str, Any]:
    """Return the request of a prediction; ``target_model`` names an archive of a multi-model endpoint."""
    target = {} if target_model is None else {"TargetModel": target_model}
    return {"EndpointName": endpoint, "ContentType": content_type, "Accept": accept, **target, "Body": body}
