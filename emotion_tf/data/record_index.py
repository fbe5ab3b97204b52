"""Reads records of shards in any order."""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from emotion_tf.data.verify import CRC, HEADER, REPAIR, read_payloads
from emotion_tf.errors import UserError


class RecordIndex:
    """Where each record of some shards begins: 12 bytes a record.

    TensorFlow's reader of TFRecords reads a file from beginning to end. The index contains a checksum of each
    record, which is compared when the record is read: the shards may be damaged or replaced during a training.

    Args:
        paths: the shards, in order.

    Attributes:
        offsets: byte at which each record begins, with its header, in the joined shards; and their end, int64 (N + 1,).
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        sizes, sums = array("q", [0]), array("I")
        self._records = [0]
        for path in self.paths:
            for payload in read_payloads(path):
                sizes.append(HEADER.size + len(payload) + CRC.size)
                sums.append(zlib.crc32(payload))
            self._records.append(len(sums))
        self.offsets = np.cumsum(sizes, dtype=np.int64)
        self._sums = np.array(sums, np.uint32)

    def __len__(self) -> int:
        return len(self._sums)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Returns the records at `positions` int64 (B,) in the joined shards, bytes (B,).

        Raises:
            UserError: a record is not the one that the index was made from.
        """
        records = np.empty(len(positions), object)
        shards = np.searchsorted(self._records, positions, side="right") - 1
        begins = self.offsets[positions] - self.offsets[np.array(self._records)[shards]]
        sizes = self.offsets[positions + 1] - self.offsets[positions] - HEADER.size - CRC.size
        order = np.lexsort((begins, shards))
        columns = (values[order].tolist() for values in (shards, begins, sizes, self._sums[positions]))
        spans = zip(order.tolist(), *columns, strict=True)
        for shard, spans_of_shard in groupby(spans, key=itemgetter(1)):
            with open(self.paths[shard], "rb", buffering=0) as file:
                number = file.fileno()
                for i, _, begin, size, checksum in spans_of_shard:
                    payload = os.pread(number, size, begin + HEADER.size)
                    if zlib.crc32(payload) != checksum:
                        raise UserError(f"{file.name}: The record at offset {begin} has changed. {REPAIR}")
                    records[i] = payload
        return records
