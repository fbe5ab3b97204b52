"""Command-line arguments by tyro, with every error on one line. No TensorFlow here: `--help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.program import program

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value, such as `--overwrite`. The configuration's booleans have `--face.no-augment` as well."""
NO_PREFIX = tyro.conf.arg(name="")
"""Annotates a parameter that is a dataclass of options: they are typed `--out`, not `--dataset.out`."""


@dataclasses.dataclass(frozen=True)
class ConfigArguments:
    """Arguments of each verb that trains: the configuration, where it starts from, and where the result goes."""

    config: Annotated[Config, NO_PREFIX]
    preset: str = "demo"
    """Starting configuration: demo (GRU + CNN), minilm (MiniLM + GRU, CNN), base (BERT + GRU, ResNet50 + CNN)."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Starting configuration, in place of --preset: the config.json of a run."""
    name: str | None = None
    """Name of the result's folder in saved_models/ (of a search: in tuning/results/).
    Default: the names of the data set and the towers."""
    overwrite: Flag = False
    """Replace the folder of that name."""
    smoke: Flag = False
    """Train for seconds only: one epoch of four small batches."""


Arguments = TypeVar("Arguments", bound=ConfigArguments)


def parse(command: Any, args: Sequence[str], prog: str, default: Any = None) -> Any:
    """Calls `tyro.cli` and turns its boxed errors into one `UserError`.

    For a function, returns the function with its arguments bound, not yet called: what it writes to stderr is its own.
    """
    if not isinstance(command, type):
        command = _deferred(command)
    help_text, errors = _HelpText(), io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stdout(help_text), contextlib.redirect_stderr(errors):
            return tyro.cli(command, args=list(args), prog=prog, **extra)
    except SystemExit as end:
        if end.code in (0, None):
            print(help_text.wrapped(), end="", flush=True)
            raise
        raise UserError(one_line(errors.getvalue(), args)) from None


class _HelpText(io.StringIO):
    """Collects the help; tyro draws it with the characters and colours that standard output has."""

    def __init__(self) -> None:
        super().__init__()
        self._stdout = sys.stdout

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stdout.encoding

    def isatty(self) -> bool:
        return self._stdout.isatty()

    def wrapped(self) -> str:
        """Returns the help with its description wrapped, which tyro prints as long lines above its boxes."""
        lines = self.getvalue().split("\n")
        above = list(itertools.takewhile(lambda line: not line.startswith(("╭", " ", "\x1b")), lines))
        width = max(40, shutil.get_terminal_size().columns)
        return "\n".join([*(textwrap.fill(line, width) for line in above), *lines[len(above) :]])


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Returns a function with the signature of a verb that binds its arguments, for tyro to call."""

    def deferred(*args: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(verb, *args, **options)

    deferred.__doc__ = re.sub(r"\n {8}", " ", inspect.getdoc(verb) or "")  # tyro prints line breaks as they are
    deferred.__annotations__ = get_type_hints(verb, include_extras=True)
    deferred.__signature__ = inspect.signature(verb)  # type: ignore[attr-defined]
    return deferred


def one_line(box: str, args: Sequence[str] = ()) -> str:
    """Returns the message inside tyro's box, without its frame and help."""
    lines = [re.sub(r"[│╭╮╰╯─]", "", re.sub(r"\x1b\[[0-9;]*m", "", line)).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"Argument helptext:|For full helptext", text)[0]
    options = re.findall(r"--[\w.-]+", text.split("Perhaps you meant:")[-1]) if "Perhaps you meant:" in text else []
    text = text.split("Perhaps you meant:")[0].strip().rstrip(".") + "."
    if flag := _flag_with_value(text, args):
        return flag
    return text + (f" Did you mean {options[0]}?" if options else "") + " --help lists the options."


def _flag_with_value(message: str, args: Sequence[str]) -> str:
    """Returns how to write a flag that was followed by true or false; empty if that is not the error."""
    unrecognized = message.removeprefix("Unrecognized options:").rstrip(".").split()
    words = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    for option, value in itertools.pairwise(words):
        if option.startswith("--") and value in unrecognized and value.lower() in ("true", "false"):
            advice = f"Write {option}" if value.lower() == "true" else f"Write {negated(option)}"
            if value.lower() == "false" and "." not in option:
                advice = f"Leave {option} out"
            return f"{option} takes no value. {advice}. Received: {option} {value}."
    return ""


def negated(option: str) -> str:
    """Returns the option that switches a flag of the configuration off: `--face.no-augment` for `--face.augment`."""
    part, dot, name = option.removeprefix("--").rpartition(".")
    return f"--{part}{dot}no-{name}"


def early_options(args: Sequence[str]) -> argparse.Namespace:
    """Returns preset, config, name and resume, which decide the defaults of the other options."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--preset", "--config", "--name"):
        early.add_argument(option)
    try:
        known, _ = early.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from None
    known.resume = "--resume" in args
    return known


def starting_configuration(known: argparse.Namespace) -> Config:
    """Returns what --config or --preset name, which the other options change."""
    if known.name is not None:
        folders.check_name(known.name)
    if known.config and not known.resume:
        if known.preset:
            raise UserError("--preset and --config each give a whole configuration. Expected one of them.")
        return configuration.read_config(Path(known.config))
    return configuration.preset(known.preset or "demo")


def parse_configured(verb: str, args: Sequence[str], start: Arguments) -> Arguments:
    """Parses the arguments of a verb that trains.

    Args:
        verb: its name, for the help.
        args: the words of the command line after the verb.
        start: the defaults, with the configuration that the options change.
    """
    arguments: Arguments = parse(type(start), args, f"{program()} {verb}", default=start)
    if not arguments.smoke:
        return arguments
    return dataclasses.replace(arguments, config=configuration.smoke(arguments.config))
