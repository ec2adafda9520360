"""RecordIO-protobuf (``application/x-recordio-protobuf``), SageMaker's own format, read and written by NumPy alone.

``framing`` delimits records, ``protobuf`` encodes them, ``reader`` and ``writer`` convert them from and to arrays.
"""

from kmeans.formats.recordio.reader import decode, decode_instances, looks_like, read_blocks
from kmeans.formats.recordio.writer import encode, encode_predictions

__all__ = ["decode", "decode_instances", "encode", "encode_predictions", "looks_like", "read_blocks"]
