"""The command line: `emotion-tf VERB`, or `python main.py VERB` in a clone. A verb is imported when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from emotion_tf import command_line, trust
from emotion_tf.cli.verbs import VERBS, Verb
from emotion_tf.errors import UserError, nearest
from emotion_tf.program import program
from emotion_tf.terminal import say

HELP = ("-h", "--help", "help")


def main() -> int:
    """Runs the verb of the command line.

    Returns:
        The exit code: 0, 1 if nobody reads the output, 2 for a `UserError`, 130 after an interruption.
    """
    try:
        dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has ended, such as `| head`
        _discard_output()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        say(f"error: Cannot write: {error.strerror}. Free some space or write to another place.", file=sys.stderr)
        return 2
    except UserError as error:
        say(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        say(f"Interrupted. {interruption}".strip(), file=sys.stderr)  # says what is kept, and how to continue
        return 130
    return 0


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes stdout at its end


def dispatch(args: Sequence[str]) -> None:
    """Runs a verb with its arguments. Raises UserError for an unknown verb or option."""
    if not args or args[0] in HELP:
        say(overview())
        return
    group = [verb for verb in VERBS if verb.name.startswith(f"{args[0]} ")]
    if not group:
        run(_find(args[0], {verb.name.split()[0]: verb for verb in VERBS}), args[1:])
    elif len(args) < 2 or args[1] in HELP:
        say("\n".join([f"usage: {program()} {args[0]} ...", "", *map(_line, group)]))
    else:
        run(_find(args[1], {verb.name.split()[1]: verb for verb in group}), args[2:])


def run(verb: Verb, args: Sequence[str]) -> None:
    """Parses the arguments of a verb and runs it."""
    function = load(verb.run)
    if verb.arguments:
        arguments = load(verb.arguments)(args)
        with trust.everything(arguments.trust):
            function(arguments)
    else:
        command_line.parse(function, args, f"{program()} {verb.name}")()


def load(reference: str) -> Any:
    """Imports the object `module:name`; a module without a package is in `emotion_tf.cli`."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module if "." in module else f"{__name__}.{module}"), name)


def overview() -> str:
    """Returns the list of verbs."""
    return "\n".join(
        [f"usage: {program()} VERB [options]      (VERB --help lists its options)", "", *map(_line, VERBS)]
    )


def _line(verb: Verb) -> str:
    return f"  {f'{verb.name} {verb.usage}':<33} {verb.summary}"


def _find(name: str, verbs: Mapping[str, Verb]) -> Verb:
    """Returns the verb of a name. Raises UserError for an unknown one."""
    if name not in verbs:
        raise UserError(f"Unknown verb {name!r}. Expected one of: {', '.join(verbs)}.{nearest(name, verbs)}")
    return verbs[name]
