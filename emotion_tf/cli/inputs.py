"""Options that `predict`, `explain` and `demo` share: the server, the utterance, and how its faces are found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import docstring_parser
import tyro

from emotion_tf.command_line import Flag
from emotion_tf.config import CropConfig, rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.terminal import say

if TYPE_CHECKING:
    from emotion_tf.run_info import DataSpec
    from emotion_tf.runs.facts import ModelFacts
    from emotion_tf.serving.client import Client
    from emotion_tf.serving.predictor import Predictor


def _optional(config: type) -> dict[str, Any]:
    """Returns the fields of a configuration as options; one that is not typed is absent and has no default."""
    hint = tyro.conf.arg(help_behavior_hint="(default: as in the run's data set)")
    descriptions = {p.arg_name: p.description for p in docstring_parser.parse_from_object(config).params}
    return {
        name: Annotated[kind, tyro.conf.arg(help=descriptions[name]), hint]
        for name, kind in get_type_hints(config, include_extras=True).items()
    }


if TYPE_CHECKING:
    CropOptions = Mapping[str, Any]
else:
    CropOptions = TypedDict("CropOptions", _optional(CropConfig), total=False)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """TensorFlow Serving, in place of a model in this process."""

    server: Annotated[str, rules.value("ADDRESS")] = ""
    """TensorFlow Serving that answers for RUN: HOST:PORT for gRPC, http://HOST:PORT for REST; with TLS
    grpcs://HOST:PORT and https://HOST:PORT. Default: none."""
    model: Annotated[str, rules.value("NAME")] = ""
    """Name of the model on the server. Default: the name of the run."""
    timeout: Annotated[float, Range(0, 86_400, above=True)] = 10.0
    """Seconds to wait for the server's answer."""
    ca: Annotated[Path | None, rules.value("FILE")] = None
    """Certificates (PEM) that sign the server's. Default: those that this machine trusts. The environment variable
    EMOTION_TF_AUTHORIZATION is sent as the header `authorization`, such as "Bearer TOKEN"."""

    def __post_init__(self) -> None:
        """Raises UserError for a model or certificates without a server, and for a number outside its range."""
        rules.check_fields(self)
        if self.model and not self.server:
            raise UserError(f"--model names the model on a server. Expected --server, too. Received: {self.model!r}.")
        if self.ca and not self.server:
            raise UserError(f"--ca names the certificates of a server. Expected --server, too. Received: {self.ca}.")

    def connect(self, facts: ModelFacts) -> Client:
        """Returns a client of the server. Raises UserError if the options do not fit each other."""
        from emotion_tf.serving.client import Client

        authorization = os.environ.get("EMOTION_TF_AUTHORIZATION", "")
        return Client(self.server, facts, self.model, self.timeout, ca=self.ca, authorization=authorization)


@dataclasses.dataclass(frozen=True)
class UtteranceOptions:
    """An utterance: its text, the utterances before it, and its face."""

    text: Annotated[str, rules.value("TEXT")] = ""
    """Text of the utterance; "Speaker: utterance" for runs with --text.speaker."""
    context: Annotated[tuple[str, ...], rules.value("TEXT ...")] = ()
    """Previous utterances, oldest first, each as "Speaker: utterance"; for runs with --text.context."""
    face: Annotated[tuple[Path, ...], rules.value("PHOTO ...")] = ()
    """Photo of the face, or several of the same face. The largest face in it is found and aligned."""
    face_is_crop: Flag = False
    """The photos are aligned face crops already."""
    clip: Annotated[Path | None, rules.value("CLIP")] = None
    """Video of the utterance, in place of --face. The face that speaks is found and aligned."""
    faces: CropOptions = dataclasses.field(default_factory=dict)
    """How faces are found."""

    def __post_init__(self) -> None:
        """Raises UserError for options that exclude each other, and for an invalid path."""
        rules.check_fields(self)
        if self.face and self.clip:
            raise UserError("Give at most one of: --face, --clip. Each gives the face of the utterance.")
        if self.face_is_crop and not self.face:
            raise UserError("--face-is-crop says that the pictures of --face are aligned crops. Expected --face, too.")

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a text nor a face."""
        return not (self.text or self.face or self.clip)

    def find_crops(self, spec: DataSpec | ModelFacts) -> list[Any]:
        """Returns the aligned face crops, found as in the data set of `spec`: JPEGs, or paths with --face-is-crop.

        Raises:
            UserError: a photo shows no face, or a picture or the clip cannot be read.
        """
        from emotion_tf.serving import film

        if self.face_is_crop:
            return list(self.face)
        if not self.face and self.clip is None:
            return []
        config = film.crop_config(spec.crops, self.faces)
        for path in self.face if self.clip is None else (self.clip,):
            if not path.is_file():
                fault = "Not a regular file" if path.exists() else "No such file"
                raise UserError(f"{fault}: {path}. Expected {'a photo' if self.clip is None else 'a video clip'}.")
        model = detector_model(config)
        if self.clip is None:
            return film.crop_photos(self.face, config, model, spec.face_size)
        return _crop_clip(self.clip, config, model, spec.face_size)


def _crop_clip(clip: Path, config: CropConfig, model: Path | None, size: int) -> list[bytes]:
    """Returns the crops of a clip and prints how their face was selected."""
    from emotion_tf.faces.crops import UNDECODABLE
    from emotion_tf.faces.frames import Segment
    from emotion_tf.faces.pool import Clip
    from emotion_tf.serving import film

    (crops,) = film.crop_clips([Clip((Segment(clip),))], config, model, size, 1)
    if crops.problem in (UNDECODABLE, "time limit", "decoder crashed"):
        raise UserError(crops.detail if crops.problem == UNDECODABLE else f"{clip}: {crops.detail}.")
    times = ", ".join(f"{time:.2f}" for time in crops.times)
    margin = f", margin {crops.margin:.2f} to the next of {crops.tracks}" if crops.tracks > 1 else ""
    selection = f"{crops.policy}, score {crops.score:.2f}{margin}; crops at {times} s"
    say(f"face: {selection if crops.jpegs else crops.problem + ', the text alone'}")
    return list(crops.jpegs)


def open_predictor(run: Path, serving: ServerOptions) -> Predictor:
    """Opens a run, an ensemble or an export, or the server that answers for it. Raises UserError if there is none."""
    if serving.server:
        from emotion_tf.runs.facts import read_facts

        return serving.connect(read_facts(run))
    from emotion_tf.progress import stage
    from emotion_tf.serving.predict import open_predictor

    with stage(f"opening {run}"):
        return open_predictor(run)
