"""How RecordIO-protobuf is laid out: the numbers that reader and writer share.

A file is a row of frames, and each frame holds one ``Record`` message::

    frame    u32 magic 0xCED7230A | u32 length (low 29 bits) and part flag (top 3) | payload | zeros to a multiple of 4
    Record   1 features: map<string, Value>   2 label: map<string, Value>   3 uid   4 metadata   5 configuration
    entry    1 key   2 value                                          (of either map; the vector's key is "values")
    Value    2 float32_tensor   3 float64_tensor   7 int32_tensor   9 bytes
    Tensor   1 values (packed)   2 keys (packed uint64; present: sparse)   3 shape (packed uint64)

A payload that holds the magic number at a multiple of 4 may be cut there into parts (flag 1 first, 2 middle, 3 last);
SageMaker's own writers don't, so frames are followed by their lengths and never by searching for the magic number.
(SageMaker developer guide, "Common Data Formats for Training"; dmlc-core's ``recordio.h``.)
"""

from __future__ import annotations

import struct

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
HEADER = struct.Struct("<II")
LENGTH_BITS = 29
WHOLE, FIRST_PART, LAST_PART = 0, 1, 3

VECTOR_KEY = b"values"
RECORD_FEATURES, RECORD_LABEL, RECORD_UID, RECORD_METADATA = 1, 2, 3, 4
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_FLOAT32, VALUE_FLOAT64, VALUE_INT32 = 2, 3, 7
TENSOR_VALUES, TENSOR_KEYS, TENSOR_SHAPE = 1, 2, 3
