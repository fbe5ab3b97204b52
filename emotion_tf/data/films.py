"""Where the film of each utterance is, and how its face crops are made from it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf import files
from emotion_tf.config import CropConfig
from emotion_tf.data.manifest import Row
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.detect import load_detector
from emotion_tf.faces.pool import Clip, crop_all

Key = tuple[str, str, str]
NO_CLIP = FaceCrops(problem="no clip")


@dataclass(frozen=True)
class Films:
    """The clips of a data set.

    Attributes:
        root: folder that the records name clips relative to.
        clips: utterance -> its clip, or a `FaceCrops` whose `problem` says why there is none to look at.
        config: how faces are found.
        model: YuNet's model file; None for another detector.
        processes: how many clips at once.
        account: what became of every clip file, for `dataset_info.json`.
    """

    root: Path
    clips: Mapping[Key, Clip | FaceCrops]
    config: CropConfig
    model: Path | None
    processes: int
    account: dict[str, Any] = field(default_factory=dict)

    def crops(self, rows: Sequence[Row], face_size: int) -> Iterator[FaceCrops]:
        """The face crops of each row, in order."""
        clips = (self.clips.get(row.key, NO_CLIP) for row in rows)
        load = functools.partial(load_detector, self.config.detector, self.model)
        return crop_all(clips, self.config, load, face_size, self.processes)

    def names(self, row: Row) -> list[str]:
        """The pieces of a row's film, relative to the root."""
        clip = self.clips.get(row.key)
        return [segment.name(self.root) for segment in clip.segments] if isinstance(clip, Clip) else []

    def about(self) -> dict[str, Any]:
        """What `dataset_info.json` keeps: options, the detector's hash, the root as it was given."""
        model = files.sha256(self.model) if self.model else None
        return {"root": str(self.root), **dataclasses.asdict(self.config), "detector_model": model}

    def purpose(self) -> list[Any]:
        """All that the crops depend on: the options, and each file's size and time of change."""
        clips = [(key, clip) for key, clip in sorted(self.clips.items())]
        paths = sorted({segment.path for _, clip in clips if isinstance(clip, Clip) for segment in clip.segments})
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) if p.exists() else str(p) for p in paths]
        return [self.about(), [repr(pair) for pair in clips], stats]
