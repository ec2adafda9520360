"""CreateTransformJob."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO

STRATEGIES = ("MultiRecord", "SingleRecord")


@dataclass(frozen=True, slots=True)
class Join:
    """How input and answer come to stand in one record; paths are JSONPath, a row of CSV counts as an array.

    Attributes
    ----------
    input_filter
        What of a record the model gets.
    output_filter
        What of the joined record is written.
    """

    input_filter: str = "$"
    output_filter: str = "$"

    def request(self) -> dict[str, str]:
        """Return DataProcessing."""
        return {"InputFilter": self.input_filter, "OutputFilter": self.output_filter, "JoinSource": "Input"}


# The first column is the true digit, which the model must not see; written are that and the two columns of the answer.
DIGIT_AND_ANSWER = Join("$[1:]", "$[0,-2,-1]")


def create_transform_job(
    name: str,
    *,
    model: str,
    input_uri: str,
    output_uri: str,
    content_type: str = CSV,
    accept: str = CSV,
    strategy: str = "MultiRecord",
    join: Join | None = None,
    instance_type: str = "ml.m5.large",
    instances: int = 1,
    max_payload_mb: int = 6,
) -> dict[str, Any]:
    """Return the request of a batch transform.

    Parameters
    ----------
    input_uri
        Prefix of the objects; the answer to ``NAME`` lies at ``<output_uri>/NAME.out``.
    strategy
        ``MultiRecord`` sends as many records as ``max_payload_mb`` holds, ``SingleRecord`` one at a time.
    """
    is_lines = content_type in (CSV, JSON_LINES)
    return {
        "TransformJobName": name,
        "ModelName": model,
        "BatchStrategy": strategy,
        "MaxPayloadInMB": max_payload_mb,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_uri}},
            "ContentType": content_type,
            "CompressionType": "None",
            "SplitType": "Line" if is_lines else "RecordIO",
        },
        "TransformOutput": {
            "S3OutputPath": output_uri,
            "Accept": accept,
            "AssembleWith": "None" if accept == RECORDIO else "Line",
        },
        "TransformResources": {"InstanceType": instance_type, "InstanceCount": instances},
        **({} if join is None else {"DataProcessing": join.request()}),
    }
