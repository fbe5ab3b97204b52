"""Arguments by tyro, with every fault in one line. No TensorFlow here: `--help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from emotion_tf import config as configuration
from emotion_tf.config import Config
from emotion_tf.errors import UserError, nearest

RUNS = Path("saved_models")


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Train a run: the configuration, and what becomes of it. Ends with the results on test and the run's folder."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: str = "demo"
    """Starting configuration: demo (GRU + CNN), minilm (MiniLM + GRU, CNN), base (BERT + GRU, ResNet50 + CNN)."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Starting point of the configuration: the config.json of a run."""
    name: str | None = None
    """Name of the run in saved_models/; without it, data set and towers, and the next free number."""
    resume: bool = False
    """Go on with an interrupted run (--name, or the newest) from its last finished epoch."""
    overwrite: bool = False
    """Replace the run of that name."""
    seeds: int = 1
    """Train so many runs, NAME-seed0, NAME-seed1 ..., and print their mean; the same command goes on after an end."""
    smoke: bool = False
    """A run of seconds: one epoch of four small batches."""


@dataclasses.dataclass(frozen=True)
class CrossvalArguments:
    """Cross-validate a configuration on the training split: dialogues are kept whole, the epoch is chosen on dev.

    Ends with metrics of each fold and of all, and a prediction for every utterance by a model that did not see its
    dialogue. The same command goes on after an interruption.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: str = "demo"
    """Starting configuration: demo, minilm or base, as for `train`."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Starting point of the configuration: the config.json of a run."""
    name: str | None = None
    """Name of its folder in saved_models/; without it, data set and towers."""
    folds: int = 5
    """Parts of the training split, each held out once."""
    repeats: int = 1
    """How often, each time with other folds and another seed."""
    overwrite: bool = False
    """Begin anew in place of the folder of that name."""
    smoke: bool = False
    """Folds of seconds: one epoch of four small batches each."""


def parse(command: Any, args: Sequence[str], prog: str, default: Any = None) -> Any:
    """`tyro.cli`, whose boxes of several lines become one `UserError`.

    Of a function it gives a call with the arguments, still to be made: what the function says on stderr is its own.
    """
    if not isinstance(command, type):
        command = _later(command)
    said = io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(command, args=_booleans(args), prog=prog, config=(tyro.conf.FlagConversionOff,), **extra)
    except SystemExit as end:
        if end.code in (0, None) or not said.getvalue():  # no fault of tyro: such as a reader that went away
            raise
        raise UserError(one_line(said.getvalue())) from None


def _later(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    @functools.wraps(verb)  # of its signature and docstring tyro makes the options
    def later(*args: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(verb, *args, **options)

    return later


def one_line(box: str) -> str:
    """The message inside tyro's box, without its frame and help."""
    lines = [re.sub(r"[│╭╮╰╯─]", "", re.sub(r"\x1b\[[0-9;]*m", "", line)).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"Argument helptext:|For full helptext", text)[0]
    options = re.findall(r"--[\w.-]+", text.split("Perhaps you meant:")[-1]) if "Perhaps you meant:" in text else []
    text = text.split("Perhaps you meant:")[0].strip().rstrip(".") + "."
    return text + (f" Did you mean {options[0]}?" if options else "") + " --help lists the options."


def _booleans(args: Sequence[str]) -> list[str]:
    """`--x true` and `--x=true` as tyro wants it, and `--resume` alone for true."""
    switches = _FLAGS | _switches(Config)
    made: list[str] = []
    for i, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if option.replace("_", "-") in switches and equals:
            made += [option, value.capitalize()]
            continue
        is_value = i > 0 and args[i - 1].replace("_", "-") in switches
        made.append(arg.capitalize() if is_value and arg.lower() in ("true", "false") else arg)
        following = args[i + 1].lower() if i + 1 < len(args) else ""
        if arg in _FLAGS and following not in ("true", "false"):
            made.append("True")
    return made


_FLAGS = {"--resume", "--overwrite", "--smoke", "--text-only", "--face-is-crop", "--markdown", "--report", "--verify"}


def _switches(kind: Any, prefix: str = "--") -> set[str]:
    """The options of a configuration that are true or false."""
    found: set[str] = set()
    for name, hint in get_type_hints(kind).items():
        option = prefix + name.replace("_", "-")
        found |= (
            _switches(hint, f"{option}.") if dataclasses.is_dataclass(hint) else {option} if hint is bool else set()
        )
    return found


def early_options(args: Sequence[str]) -> argparse.Namespace:
    """preset, config, name and resume, which must be known before the rest can be read."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--preset", "--config", "--name"):
        early.add_argument(option)
    early.add_argument("--resume", nargs="?", const="true", default="false")
    try:
        known, _ = early.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from None
    return known


def starting_configuration(known: argparse.Namespace) -> Config:
    """What --config or --preset name, which the other options change."""
    if known.name is not None:
        check_name(known.name)
    if known.config and known.resume.lower() == "false":
        if known.preset:
            raise UserError("--preset and --config each give a whole configuration. Expected one of them.")
        return configuration.read_config(Path(known.config))
    return configuration.preset(known.preset or "demo")


def crossval_arguments(args: Sequence[str]) -> CrossvalArguments:
    """Arguments of `crossval`."""
    start = starting_configuration(early_options(args))
    found: CrossvalArguments = parse(CrossvalArguments, args, "main.py crossval", CrossvalArguments(config=start))
    if found.repeats < 1:
        raise UserError(f"Invalid `--repeats`. Expected a number of at least 1. Received: {found.repeats}.")
    return dataclasses.replace(found, config=configuration.smoke(found.config)) if found.smoke else found


def train_arguments(args: Sequence[str]) -> TrainArguments:
    """Arguments of `train`: --preset, --config or the resumed run give the configuration that the others change."""
    known = early_options(args)
    start = starting_configuration(known)
    resume = known.resume.lower() != "false"
    run = None
    if resume:
        run = RUNS / known.name if known.name else newest_unfinished()
        start = configuration.read_config(run / "config.json")
    found: TrainArguments = parse(TrainArguments, args, "main.py train", default=TrainArguments(config=start))
    if found.seeds < 1:
        raise UserError(f"Invalid `--seeds`. Expected a number of at least 1. Received: {found.seeds}.")
    if found.smoke:
        found = dataclasses.replace(found, config=configuration.smoke(found.config))
    if run is not None:
        if found.config != start or found.overwrite or found.seeds != 1 or known.preset or known.config:
            raise UserError(
                f"--resume goes on with the configuration of {run}. Received other options; leave them "
                "away, or train anew."
            )
        found = dataclasses.replace(found, name=run.name)
    return found


def check_name(name: str, folder: Path | None = None) -> None:
    """Raises UserError unless `name` is one folder inside saved_models/ (or another): --overwrite removes it."""
    if name in ("", ".", "..") or "\0" in name or Path(name).name != name:
        raise UserError(
            f"Invalid `--name`. Expected the name of a folder in {folder or RUNS}/, without a path. Received: {name!r}."
        )


def newest_unfinished() -> Path:
    """The run in saved_models/ that was interrupted last. Raises UserError when there is none."""
    unfinished = (path for path in RUNS.glob("*/checkpoint") if not (path.parent / "model.keras").exists())
    runs = sorted(unfinished, key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"Nothing to resume: no run in {RUNS}/ was interrupted. Train one with: python main.py train")
    return runs[-1].parent


def free_name(config: Config, folder: Path | None = None) -> str:
    """Data set and towers, with the next number that is free in saved_models/ (or in another folder)."""
    stem = f"{Path(config.data).name}-{config.towers}"
    taken = (f"{stem}-{n}" if n > 1 else stem for n in range(1, 100_000))
    return next(name for name in taken if not ((folder or RUNS) / name).exists())


def check_verb(verb: str, verbs: Sequence[str]) -> None:
    """Raises UserError for an unknown verb."""
    if verb not in verbs:
        raise UserError(f"Unknown verb {verb!r}. Expected one of: {', '.join(verbs)}.{nearest(verb, verbs)}")
