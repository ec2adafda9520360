"""A program: what sagemaker-training's Environment reads below SAGEMAKER_BASE_DIR, as JSON in the file argv[1].

A separate process, because the package takes the folder from the environment when it is imported, and changes it.
"""

import json
import sys
from pathlib import Path

from sagemaker_training.environment import Environment


def main(answer: Path) -> None:
    environment = Environment()
    found = {
        "hyperparameters": environment.hyperparameters,
        "channels": environment.channel_input_dirs,
        "hosts": environment.hosts,
        "current_host": environment.current_host,
        "leader": environment.master_hostname,
        "model": environment.model_dir,
        "output": environment.output_dir,
    }
    answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
