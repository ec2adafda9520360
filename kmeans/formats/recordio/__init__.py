"""RecordIO-protobuf (``application/x-recordio-protobuf``), SageMaker's own format, read and written by NumPy alone.

``framing`` delimits records, ``protobuf`` encodes them, ``reader`` and ``writer`` convert them from and to arrays.
"""

from kmeans.formats.format import Format
from kmeans.formats.media_type import RECORDIO
from kmeans.formats.recordio.framing import MAGIC_BYTES, each_record, split_records
from kmeans.formats.recordio.reader import decode, decode_instances, read_rows
from kmeans.formats.recordio.writer import encode, encode_predictions

__all__ = ["FORMAT", "decode", "decode_instances", "encode", "encode_predictions", "read_rows"]

FORMAT = Format(
    media_type=RECORDIO,
    name="RecordIO-protobuf",
    aliases=("x-recordio-protobuf",),
    magic=MAGIC_BYTES,
    read_rows=read_rows,
    decode=decode_instances,
    split=split_records,
    split_rows=each_record,
    encode=encode_predictions,
)
