"""One-line messages for command lines that tyro rejects, with the option that was meant."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from emotion_tf.errors import did_you_mean

MAX_SUGGESTIONS = 4
NUMBERS = {
    r"invalid literal for int\(\) with base 10": "a whole number, such as 3",
    r"no type matching \{None\}\|INT could be instantiated from": "a whole number, such as 3",
    "could not convert string to float": "a number, such as 0.5",
    "Could not find valid parse for arguments": "whole numbers, such as 8 16",
}
"""Error of Python or tyro, as a pattern -> what the option expects. Only options of whole numbers take several."""
_HINT = " --help lists the options."


def describe_error(box: str, args: Sequence[str] = (), list_options: Callable[[], Collection[str]] = tuple) -> str:
    """Returns the message of tyro's error box, without the frame and the advice.

    Args:
        box: what tyro has printed.
        args: words of the command line after the verb.
        list_options: returns the options of the verb; called for an unknown one alone.
    """
    lines = [re.sub(r"[│╭╮╰╯─]", "", re.sub(r"\x1b\[[0-9;]*m", "", line)).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    if "Unrecognized options:" in text and (unknown := unknown_options(args, list_options())):
        return _flag_with_value(text, args) or " ".join(unknown) + _HINT
    if text.startswith("Missing from"):  # the names of the arguments are indented less than their help
        names = re.findall(r"^│ {5}(\S.*?) *│$", box.split("For full helptext")[0], re.MULTILINE)
        return f"Missing: {', '.join(names)}. --help describes them."
    text = re.split(r"Argument helptext:|For full helptext|Perhaps you meant:", text)[0]
    text = text.replace("Expected 1 values", "Expected one")
    return _flag_with_value(text, args) or _no_number(text) or text.strip().rstrip(".") + "." + _HINT


def unknown_options(args: Sequence[str], options: Collection[str]) -> list[str]:
    """Returns a sentence for each option that the verb does not have, with those that may be meant."""
    names = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
    return [
        f"Unknown option {name}.{did_you_mean(suggest(name, options))}"
        for name in dict.fromkeys(names)
        if name.replace("_", "-") not in options
    ]


def suggest(name: str, options: Collection[str]) -> list[str]:
    """Returns the options that a user may mean by one that does not exist.

    Options of the configuration are found by their last word, its beginning or its initials: `--train.seed` for
    `--seed`, `--train.batch-size` for `--batch` and `--bs`; and `--fusion.kind`, the first of its section, for
    `--fusion`. Those of the section that was typed go first.
    """
    section, _, word = name.lstrip("-").replace("_", "-").lower().rpartition(".")
    if not word.startswith("no-"):
        options = [option for option in options if not option.rpartition(".")[2].startswith("no-")]
    in_section = [option for option in options if option.startswith(f"--{section}.")]
    for candidates in filter(None, (in_section, options)):
        for matches in _matches(word, {option: option.lstrip("-").rpartition(".")[2] for option in candidates}):
            if matches:
                return matches[:MAX_SUGGESTIONS]
    return []


def _matches(word: str, last_words: dict[str, str]) -> Iterator[list[str]]:
    """Yields the options whose last word matches, the best kind of match first."""
    yield [option for option, last in last_words.items() if last == word]
    yield [option for option in last_words if option.startswith(f"--{word}.")][:1]
    if len(word) > 1:
        yield [option for option, last in last_words.items() if "".join(part[0] for part in last.split("-")) == word]
        yield [option for option, last in last_words.items() if last.startswith(word)]
        yield [option for option, last in last_words.items() if word in last.split("-")]
    close = difflib.get_close_matches(word, list(last_words.values()), n=1, cutoff=0.7)
    yield [option for option, last in last_words.items() if last in close]


def _no_number(message: str) -> str:
    """Returns the message for an option whose value is no number; empty for other errors."""
    for error, rule in NUMBERS.items():
        if match := re.match(rf"Error parsing (\S+): {error}:? (.*?)(\. Got errors.*)?$", message.strip().rstrip(".")):
            return f"Invalid `{match[1]}`. Expected {rule}. Received: {match[2].strip('[]')}.{_HINT}"
    return ""


def _flag_with_value(message: str, args: Sequence[str]) -> str:
    """Returns the message for a flag that is followed by a value; empty for other errors."""
    title = "Unrecognized options:"
    if not message.startswith(title):
        return ""
    message = re.split(r"Perhaps you meant:|For full helptext", message)[0]
    unrecognized = re.split(r"[,\s]+", message.removeprefix(title).strip().rstrip(".").strip())
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    for option, value in itertools.pairwise(words):
        # a word that occurs elsewhere, too, may be the value of this option
        is_unrecognized = bool(value) and unrecognized.count(value) == words.count(value)
        if option.startswith("--") and option not in unrecognized and is_unrecognized and not value.startswith("-"):
            return f"{option} takes no value. {_advice(option, value.lower())}. Received: {option} {value}."
    return ""


def _advice(option: str, value: str) -> str:
    """Returns how to write a flag in place of a flag with a value."""
    if value == "true":
        return f"Write {option}"
    if "." not in option:
        return f"Leave {option} out" if value == "false" else f"Write {option}"
    return f"Write {negated(option)}" if value == "false" else f"Write {option} or {negated(option)}"


def negated(option: str) -> str:
    """Returns the opposite of a boolean of the configuration: `--face.no-augment` for `--face.augment`."""
    section, dot, name = option.removeprefix("--").rpartition(".")
    return f"--{section}{dot}{name[3:] if name.startswith('no-') else f'no-{name}'}"
