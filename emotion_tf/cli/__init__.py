"""The command line: `emotion-tf VERB`, or `python main.py VERB` in a clone. A verb is imported when it is called."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emotion_tf import __version__, command_line, folders, interrupts, remote, streams, trust
from emotion_tf.cli.verbs import GROUPS, VERBS, Verb
from emotion_tf.errors import UserError, nearest, shorten
from emotion_tf.program import program
from emotion_tf.terminal import say

HELP = ("-h", "--help", "help")


def main() -> int:
    """Runs the verb of the command line.

    Returns:
        The exit code: 0; 2 for a `UserError`; 130 after an interruption; 141 if nobody reads a report, as if a signal
        of the pipe had ended it.
    """
    streams.open_standard()
    with streams.lossy("stderr"), interrupts.repeat_lost(), interrupts.remember_interruptions():
        return _main()


def _main() -> int:
    try:
        with interrupts.recognize_interruption(), _end_displays():
            dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has ended, such as `| head`
        streams.discard(sys.stdout)
        return 128 + signal.SIGPIPE
    except PermissionError as error:  # a look at a folder that this user may not enter; what is read is checked there
        if error.filename is None:
            raise
        _print_error(f"Cannot access {error.filename}: {error.strerror}. Change its permissions, or use another place.")
        return 2
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        streams.discard(sys.stdout)
        _print_error(f"Cannot write: {error.strerror}. Free some space or write to another place.")
        return 2
    except UserError as error:
        _print_error(str(error))
        return 2
    except KeyboardInterrupt as interruption:
        message = str(interruption)  # says what is kept, and how to continue
        say(message if message.startswith("Stopped") else f"Interrupted. {message}".strip(), file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _end_displays() -> Iterator[None]:
    """Ends the progress bars of a block that an error ends.

    The error's traceback holds the suspended generators of `progress.track`, whose bars would fold the message that is
    printed next: a command that is copied from it would have a line break.
    """
    try:
        yield
    except BaseException as error:
        logger = logging.getLogger("tensorflow")
        before, logger.disabled = logger.disabled, True  # it warns of tensors of a graph whose tracing has ended early
        for link in interrupts.chain(error):
            traceback.clear_frames(link.__traceback__)
        logger.disabled = before
        raise


def _print_error(message: str) -> None:
    say(shorten(f"error: {remote.without_secrets(message)}"), file=sys.stderr)


def dispatch(args: Sequence[str]) -> None:
    """Runs a verb with its arguments. Raises UserError for an unknown verb or option, and for one that is not UTF-8."""
    for word in args:
        try:
            word.encode()
        except UnicodeEncodeError:  # it stands in reports, in config.json and in tables, which are UTF-8
            raise UserError(f"Invalid argument {word!r}. Expected UTF-8. Rename the file, or type it again.") from None
    if args and args[0] in HELP and len(args) > 1:  # `help VERB` is `VERB --help`
        args = [*args[1:], "--help"]
    if list(args) == ["--version"]:
        streams.print_report(f"emotion_tf {__version__}\n")
        return
    if not args or args[0] in HELP:
        streams.print_report(f"{overview()}\n")
        return
    group = [verb for verb in VERBS if verb.name.startswith(f"{args[0]} ")]
    if not group:
        run(_find(args[0], {verb.name.split()[0]: verb for verb in VERBS}), args[1:])
    elif len(args) < 2 or args[1] in HELP:
        streams.print_report("\n".join([f"usage: {program()} {args[0]} ...", "", *map(_line, group), ""]))
    else:
        run(_find(args[1], {verb.name.split()[1]: verb for verb in group}), args[2:])


def run(verb: Verb, args: Sequence[str]) -> None:
    """Parses the arguments of a verb and runs it."""
    function = load(verb.run)
    if verb.arguments:
        arguments = load(verb.arguments)(args)
        call, is_trusted = functools.partial(function, arguments), arguments.trust
    else:
        call, is_trusted = command_line.parse(function, args, f"{program()} {verb.name}"), False
    with trust.everything(is_trusted), _output(verb):
        call()
        folders.store_runs()


@contextlib.contextmanager
def _output(verb: Verb) -> Iterator[None]:
    """Lets all but a report go on without its reader. Raises UserError at the end if standard output was lost."""
    with contextlib.nullcontext(sys.stdout) if verb.is_report else streams.lossy("stdout") as output:
        yield
    error = getattr(output, "error", None)
    if error and (verb.is_report or error.errno not in streams.NO_READER):
        streams.check_written(output, "" if verb.is_report else " All else is done.")


def load(reference: str) -> Any:
    """Imports the object `module:name`; a module without a package is in `emotion_tf.cli`."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module if "." in module else f"{__name__}.{module}"), name)


def overview() -> str:
    """Returns the verbs in groups."""
    lines = [f"usage: {program()} VERB [options]      (VERB --help lists its options)"]
    for title, verbs in GROUPS.items():
        lines += ["", f"{title}:", *map(_line, verbs)]
    return "\n".join(lines)


def _line(verb: Verb) -> str:
    return f"  {f'{verb.name} {verb.usage}':<33} {verb.summary}"


def _find(name: str, verbs: Mapping[str, Verb]) -> Verb:
    """Returns the verb of a name. Raises UserError for an unknown one."""
    if name not in verbs:
        raise UserError(f"Unknown verb {name!r}. Expected one of: {', '.join(verbs)}.{nearest(name, verbs)}")
    return verbs[name]
