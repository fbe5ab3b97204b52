"""The pictures that a manifest names, as face crops: read by this process or by the workers of a cluster."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from emotion_tf.cluster import connect
from emotion_tf.data.manifest import Row
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.faces.crops import FaceCrops

ROWS_PER_TASK = 64  # a picture takes about as long as Dask takes for a task
Pictures = tuple[str, tuple[Path, ...]]
"""The place of a row in its table, and its pictures."""


def read_all_crops(rows: Iterable[Row], face_size: int, scheduler: str = "") -> Generator[FaceCrops]:
    """Yields the pictures of each row as face crops, in order.

    Args:
        rows: the rows.
        face_size: side of a crop in pixels.
        scheduler: address of a scheduler of Dask, whose workers read the pictures; empty: this process does.

    Raises:
        UserError: a file does not exist or is not an image; or as `cluster.connect` and `Cluster.map` do.
    """
    if not scheduler:
        yield from (_crops(row.where, row.faces, face_size) for row in rows)
        return
    folder = Path.cwd()
    chunks = (([(row.where, row.faces) for row in chunk], face_size, folder) for chunk in _chunks(iter(rows)))
    with connect(scheduler) as cluster:
        for crops in cluster.map(_read_on_worker, chunks, None):
            if crops is None:
                raise UserError("The workers end while they read pictures. Look at their logs, often for memory.")
            yield from crops


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, ROWS_PER_TASK)):
        yield chunk


def _crops(where: str, paths: Iterable[Path], face_size: int) -> FaceCrops:
    return FaceCrops(jpegs=tuple(encode.read_crop(path, face_size, f"{where}: ") for path in paths))


def _read_on_worker(chunk: Sequence[Pictures], face_size: int, folder: Path) -> list[FaceCrops]:
    """Reads the pictures of some rows on a worker of Dask, which has them at the same paths."""
    try:
        return [_crops(where, [folder / path for path in paths], face_size) for where, paths in chunk]
    except UserError as error:
        raise UserError(f"{error} A worker, on {socket.gethostname()}, read it.") from None
