"""A program: what a user of the SDK 2 writes to transform files in batches, in local mode.

    python -m tests.conformance.sdk_transform_user FOLDER PORT IMAGE

FOLDER has `model.tar.gz` and `jobs.json`, a list of jobs, each with its name and the arguments of the SDK's two calls.
A job reads the files in the folder of its name, and its output goes to the folder `NAME.out`.
"""

import json
import sys
from pathlib import Path

from sagemaker.model import Model

from tests.conformance.sdk_user import ROLE, local_session


def main(folder: Path, port: int, image: str) -> None:
    session = local_session(folder, port)
    model = Model(image_uri=image, model_data=f"file://{folder / 'model.tar.gz'}", role=ROLE, sagemaker_session=session)
    for job in json.loads((folder / "jobs.json").read_text()):
        transformer = model.transformer(
            instance_count=1,
            instance_type="local",
            output_path=f"file://{folder / job['name']}.out",
            **job["transformer"],
        )
        transformer.transform(f"file://{folder / job['name']}", wait=False, logs=False, **job["transform"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
