"""The clips of a data set, and the face crops that are made from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf import files
from emotion_tf.config import CropConfig
from emotion_tf.data.manifest import Row
from emotion_tf.data.partial import stamp
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.detect import YUNET, load_detector
from emotion_tf.faces.pool import Clip, crop_all, crop_all_on

Key = tuple[str, str, str]
NO_CLIP = FaceCrops(problem="no clip")


@dataclass(frozen=True)
class ClipSource:
    """The clips of a data set.

    Attributes:
        root: folder; records name clips relative to it.
        clips: utterance -> its clip, or a `FaceCrops` whose `problem` says why no clip is used.
        config: detection, sampling and selection of faces.
        model: YuNet's model file; None for another detector.
        processes: number of clips that are processed in parallel.
        account: counts of the clip files, for `dataset_info.json`; see `account.summarize`.
        scheduler: address of a scheduler of Dask, whose workers process the clips; empty: this machine does.
    """

    root: Path
    clips: Mapping[Key, Clip | FaceCrops]
    config: CropConfig
    model: Path | None
    processes: int
    account: dict[str, Any] = field(default_factory=dict)
    scheduler: str = ""

    def crops(self, rows: Iterable[Row], face_size: int) -> Generator[FaceCrops]:
        """Yields the face crops of each row, in order."""
        clips = (self.clips.get(row.key, NO_CLIP) for row in rows)
        # the file that comes with the program is elsewhere on other machines
        model = None if self.model in (None, YUNET) else self.model.absolute()
        load = functools.partial(load_detector, self.config.detector, model)
        if self.scheduler:
            return crop_all_on(self.scheduler, clips, self.config, load, face_size)
        return crop_all(clips, self.config, load, face_size, self.processes)

    def segment_names(self, row: Row) -> list[str]:
        """Returns the names of the segments of a row's clip, relative to the root."""
        clip = self.clips.get(row.key)
        return [segment.name(self.root) for segment in clip.segments] if isinstance(clip, Clip) else []

    def to_json(self) -> dict[str, Any]:
        """Returns the options, the detector's hash and the root, for `dataset_info.json`."""
        model = files.sha256(self.model) if self.model else None
        return {"root": str(self.root), **dataclasses.asdict(self.config), "detector_model": model}

    def cache_key(self, row: Row) -> list[Any]:
        """Returns what the crops of a row depend on besides the options: its clip, and the stamps of the files."""
        clip = self.clips.get(row.key, NO_CLIP)
        paths = sorted({segment.path for segment in clip.segments}) if isinstance(clip, Clip) else []
        return [repr(clip), *map(stamp, paths)]
