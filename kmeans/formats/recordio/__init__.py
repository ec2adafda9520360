"""RecordIO-protobuf (``application/x-recordio-protobuf``), SageMaker's own format, read and written by NumPy alone.

``layout`` describes the format, ``protobuf`` the encoding below it, ``reader`` and ``writer`` are the two directions.
"""

from kmeans.formats.recordio.reader import Records, decode, decode_records, looks_like
from kmeans.formats.recordio.writer import encode, encode_answers

__all__ = ["Records", "decode", "decode_records", "encode", "encode_answers", "looks_like"]
