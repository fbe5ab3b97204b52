"""Parsing of command lines with tyro. Errors are one line; without TensorFlow, `--help` is fast."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

from emotion_tf import config as configuration
from emotion_tf import folders, help_text, streams, weights
from emotion_tf.config import Config, rules
from emotion_tf.errors import UserError
from emotion_tf.option_errors import describe_error
from emotion_tf.program import program
from emotion_tf.trust import everything, is_trusted, remember

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value, such as `--overwrite`. Booleans of the configuration also have `--face.no-augment`."""
NO_PREFIX = tyro.conf.arg(name="")
"""Annotation of a parameter that is a dataclass of options, for `--out` in place of `--dataset.out`."""
IS_RUN = object()
"""Annotation of a parameter whose paths are runs, which are also found by their names in saved_models/."""
RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN"), IS_RUN]
RunPaths = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ..."), IS_RUN]
SchedulerAddress = Annotated[str, rules.value("ADDRESS")]
DatasetPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATASET")]

TRUST = "Run graphs that this program did not make here for you: of a run, an export or an encoder from elsewhere."


def opens_models(verb: Callable[..., None]) -> Callable[..., None]:
    """Decorates a verb that opens runs or exports: adds the option --trust."""

    @functools.wraps(verb)
    def wrapped(*args: Any, trust: bool = False, **options: Any) -> None:
        with everything(trust):
            verb(*args, **options)

    signature = inspect.signature(verb)
    option = inspect.Parameter("trust", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Flag)
    wrapped.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), option]
    )
    wrapped.__annotations__ = {**verb.__annotations__, "trust": Flag}
    wrapped.__doc__ = f"{inspect.getdoc(verb)}\n    trust: {TRUST}"
    return wrapped


@dataclasses.dataclass(frozen=True)
class ConfigArguments:
    """Arguments of the verbs that train: the configuration, its start, and the folder of the result."""

    config: Annotated[Config, NO_PREFIX]
    preset: Annotated[str, rules.names(configuration.PRESETS)] = "demo"
    """Initial configuration: demo (GRU, CNN), minilm (MiniLM + GRU, CNN) or base (BERT + GRU, ResNet50 + CNN)."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")] = None
    """Initial configuration in place of --preset: the config.json of a run."""
    name: Annotated[str | None, rules.value("NAME")] = None
    """Name of the folder in saved_models/ (of a search: in tuning/results/); of a run, also a URL in object storage.
    Default: data set and towers."""
    overwrite: Flag = False
    """Replace the folder of that name, when the new one is complete."""
    smoke: Flag = False
    """Train for seconds only: one epoch of four small batches, evaluated on 64 rows. Its numbers mean nothing."""
    trust: Annotated[Flag, tyro.conf.arg(help=TRUST)] = False


Arguments = TypeVar("Arguments", bound=ConfigArguments)


def parse(command: Any, args: Sequence[str], prog: str, default: Any = None) -> Any:
    """Parses the arguments of a dataclass or a function, and turns tyro's boxed errors into a `UserError`.

    Returns:
        The dataclass, or the function with its arguments bound. It is not called yet, since stderr is redirected.
    """
    verb = command
    if not isinstance(command, type):
        command = _deferred(command)
    output, errors = _Output(), _Output()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), columns(help_text.RAW_WIDTH):
            return tyro.cli(command, args=list(args), prog=prog, **extra)
    except SystemExit as end:
        if end.code not in (0, None):
            message = describe_error(errors.getvalue(), args, functools.partial(_options, command, prog, extra))
            raise UserError(message) from None
        text = output.getvalue()
        if {"-h", "--help"} & set(args):
            width = max(40, shutil.get_terminal_size().columns)
            title = "\x1b[1m{}:\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else "{}:"
            text = help_text.render(text, prog, dict(help_text.titles_of(_option_groups(verb))), width, title)
        streams.print_report(text)
        raise


class _Output(io.StringIO):
    """Buffer for what tyro prints: boxes in UTF-8 and without colours, whatever standard output is."""

    encoding = "utf-8"  # type: ignore[assignment]


@contextlib.contextmanager
def columns(count: int) -> Iterator[None]:
    """Sets the width for which text is folded inside the block, in columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _option_groups(verb: Any) -> dict[str, type]:
    """Returns the options of a function that are fields of dataclasses without a prefix: option -> dataclass."""
    if isinstance(verb, type):
        return {}
    hints = get_type_hints(verb, include_extras=True)
    owners = {hint.__origin__ for hint in hints.values() if NO_PREFIX in getattr(hint, "__metadata__", ())}
    return {rules.option(name.name): owner for owner in owners for name in dataclasses.fields(owner)}


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Returns a function with the signature of a verb that binds its arguments, for tyro to call."""

    hints = get_type_hints(verb, include_extras=True)

    def deferred(*args: Any, **options: Any) -> Callable[[], None]:
        for name, limits in rules.ranges_of(verb).items():
            limits.check(rules.option(name), options[name])
        for name, value in options.items():
            rules.check_paths(_typed_name(name, hints[name]), value)
        rules.check_outputs(verb, options)
        for name in options:
            if IS_RUN in getattr(hints[name], "__metadata__", ()):
                options[name] = _find_runs(options[name])
        return functools.partial(verb, *args, **options)

    deferred.__doc__ = re.sub(r"\n {8}", " ", inspect.getdoc(verb) or "")  # tyro prints line breaks as they are
    deferred.__annotations__ = hints
    deferred.__signature__ = inspect.signature(verb)  # type: ignore[attr-defined]
    return deferred


def _typed_name(name: str, hint: Any) -> str:
    """Returns how a parameter is typed: an option, such as `--out`, or the name of an argument, such as `RUN`."""
    metadata = getattr(hint, "__metadata__", ())
    if get_args(tyro.conf.Positional[Any])[1] not in metadata:  # type: ignore[misc]
        return rules.option(name)
    return next((of.metavar for of in metadata if getattr(of, "metavar", None)), name.upper())


def _find_runs(value: Any) -> Any:
    """Returns the folder of a run, or of each of several, for its path or its name in saved_models/."""
    if isinstance(value, tuple):
        return tuple(map(folders.find_run, value))
    return value if value is None else folders.find_run(value)


def _options(command: Any, prog: str, extra: Mapping[str, Any]) -> list[str]:
    """Returns all options of a command in the order of its help, such as `--face.augment` and `--face.no-augment`."""
    output = _Output()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit), columns(help_text.RAW_WIDTH):
        tyro.cli(command, args=["--help"], prog=prog, **extra)
    lines = re.findall(r"^│ (-.*)", output.getvalue(), re.MULTILINE)
    return [option for line in lines for option in re.findall(r"(?:^|, )(--[a-z][\w.-]*)", line)]


def early_options(args: Sequence[str]) -> argparse.Namespace:
    """Parses preset, config, name and resume, on which the defaults of the other options depend."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--preset", "--config", "--name"):
        parser.add_argument(option)
    try:
        early, _ = parser.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from None
    early.resume = "--resume" in args
    return early


def check_start(early: argparse.Namespace) -> None:
    """Raises UserError if both --preset and --config are given."""
    if early.preset and early.config and not early.resume:
        raise UserError("--preset and --config each give a whole configuration. Expected one of them.")


def starting_configuration(early: argparse.Namespace, takes_url: bool = False) -> Config:
    """Returns the configuration of --config or --preset, which the other options change.

    `takes_url`: whether --name may be a URL.
    """
    if early.name is not None:
        folders.check_name(early.name, takes_url=takes_url)
    rules.check_path("--config", early.config or "")
    check_start(early)
    if early.config and not early.resume:
        return configuration.read_config(Path(early.config))
    return configuration.preset(early.preset or "demo")


def parse_configured(verb: str, args: Sequence[str], start: Arguments) -> Arguments:
    """Parses the arguments of a verb that trains. --smoke does not change the configuration yet; see `with_smoke`.

    Args:
        verb: name of the verb, for the help.
        args: words of the command line after the verb.
        start: defaults, with the configuration that the options change.
    """
    arguments: Arguments = parse(type(start), args, f"{program()} {verb}", default=start)
    arguments = dataclasses.replace(arguments, config=_with_initial_runs(arguments.config))
    if not arguments.trust:
        _check_encoders(arguments.config, args)
    return arguments


def with_smoke(arguments: Arguments) -> Arguments:
    """Returns the arguments with the short training of --smoke, if it is given."""
    if not arguments.smoke:
        return arguments
    return dataclasses.replace(arguments, config=configuration.smoke(arguments.config))


def _with_initial_runs(config: Config) -> Config:
    """Returns the configuration with the paths of the runs that --text.init and --face.init name."""
    towers = {}
    for name in config.towers:
        tower = getattr(config, name)
        if tower.init and not os.path.lexists(tower.init) and (folders.RUNS / tower.init).exists():
            towers[name] = dataclasses.replace(tower, init=str(folders.RUNS / tower.init))
    return dataclasses.replace(config, **towers)


def _check_encoders(config: Config, args: Sequence[str]) -> None:
    """Checks that the user has typed the encoders, in this command or an earlier one: a configuration may be foreign.

    Raises:
        UserError: a configuration alone names an encoder that this program does not know.
    """
    known = {"", *weights.encoders(), *(preset.text.encoder for preset in configuration.PRESETS.values())}
    typed = {word.partition("=")[0] for word in args}
    for option, handle in (("--text.encoder", config.text.encoder), ("--face.encoder", config.face.encoder)):
        name = handle if "://" in handle else os.path.abspath(handle)
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        if handle in known or is_trusted(digest):
            continue
        if option not in typed:
            raise UserError(
                f"The configuration names the encoder {handle!r}, which no command of yours has named. Expected one of "
                "`weights list`, or one that you type, since its graph is a program. If you trust its author, add "
                f"{option} {shlex.quote(handle)}, or --trust for this command alone."
            )
        remember(digest, f"{option} {handle}")
