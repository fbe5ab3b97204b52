"""Reads records of shards in any order."""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Sequence

import numpy as np

from emotion_tf.data.verify import CRC, HEADER, REPAIR, read_payloads
from emotion_tf.errors import UserError


class RecordIndex:
    """Where each record of some shards begins: 12 bytes a record.

    TensorFlow's reader of TFRecords reads a file from its begin to its end. The index contains a checksum of each
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
        for shard in np.unique(shards):
            with open(self.paths[shard], "rb", buffering=0) as file:
                for i in np.flatnonzero(shards == shard):
                    records[i] = self._read(file.fileno(), int(shard), int(positions[i]))
        return records

    def _read(self, file: int, shard: int, position: int) -> bytes:
        begin, end = self.offsets[position], self.offsets[position + 1]
        offset = int(begin - self.offsets[self._records[shard]])
        payload = os.pread(file, int(end - begin) - HEADER.size - CRC.size, offset + HEADER.size)
        if zlib.crc32(payload) != self._sums[position]:
            raise UserError(f"{self.paths[shard]}: The record at offset {offset} has changed. {REPAIR}")
        return payload
