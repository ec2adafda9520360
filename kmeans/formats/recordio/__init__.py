"""RecordIO-protobuf (``application/x-recordio-protobuf``), SageMaker's own format, read and written by NumPy alone.

``layout`` describes the format, ``protobuf`` the encoding below it, ``reader`` and ``writer`` are the two directions.
"""

from kmeans.formats.recordio.reader import decode, decode_instances, looks_like, read_blocks
from kmeans.formats.recordio.writer import encode, encode_predictions

__all__ = ["decode", "decode_instances", "encode", "encode_predictions", "looks_like", "read_blocks"]
