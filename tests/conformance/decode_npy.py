"""A program: sagemaker-inference decodes the file argv[1] as application/x-npy, and with it runs what is pickled there.

A separate process, because it runs code from a request.
"""

import sys
from pathlib import Path

from sagemaker_inference import content_types, decoder

if __name__ == "__main__":
    decoder.decode(Path(sys.argv[1]).read_bytes(), content_types.NPY)
