"""The share of the batches that a host reads, when several hosts train one model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """The share of one of several hosts, which all have the same shuffled order of the records.

    Each batch is a part of the order. A host reads its slice of it, so each record is read once in an epoch, whatever
    the number of hosts. Of the last batch, which may be short, the last hosts may have nothing.

    Attributes:
        host: number of the host, from 0.
        hosts: number of hosts.
    """

    host: int = 0
    hosts: int = 1

    def bounds(self, rows: int) -> tuple[int, int]:
        """Returns begin and end of the slice of this host, of `rows` rows."""
        return self.host * rows // self.hosts, (self.host + 1) * rows // self.hosts

    def size(self, rows: int) -> int:
        """Returns how many of `rows` rows this host has."""
        begin, end = self.bounds(rows)
        return end - begin

    def of_batches(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """Returns the records of this host, of the batches of `batch_size` consecutive records of an order."""
        begin, end = self.bounds(batch_size)
        place = np.arange(len(order)) % batch_size
        return order[(begin <= place) & (place < end)]


WHOLE = Share()
"""The share of the only host."""
