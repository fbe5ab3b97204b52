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
from typing import Any, get_type_hints

import tyro

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.config import Config
from emotion_tf.errors import UserError


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
        folders.check_name(known.name)
    if known.config and known.resume.lower() == "false":
        if known.preset:
            raise UserError("--preset and --config each give a whole configuration. Expected one of them.")
        return configuration.read_config(Path(known.config))
    return configuration.preset(known.preset or "demo")
