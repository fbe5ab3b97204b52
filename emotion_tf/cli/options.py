"""`options`: every option of the configuration and the names that it takes, read from the configuration itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import docstring_parser
from rich.console import Console
from rich.table import Table

from emotion_tf.command_line import Flag, negated
from emotion_tf.config import CHOICES, Config, CropConfig
from emotion_tf.modalities import MODALITIES

TITLES = {
    "": "The run",
    **{name: f"{name.capitalize()} tower" for name in MODALITIES},
    "fusion": "Fusion",
    "train": "Training",
    "faces": "Faces in clips (prepare, predict)",
}


def options(markdown: Flag = False) -> None:
    """Every option of the configuration with its default, and the names that it takes.

    Args:
        markdown: as the page docs/options.md.
    """
    print(as_markdown(), end="") if markdown else print_options()


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of the configuration.

    Attributes:
        flag: as it is typed.
        negated: as it is typed to switch it off; empty for an option with a value.
        default: its default.
        about: its help.
        names: the names that it takes, each with its description.
    """

    flag: str
    negated: str
    default: str
    about: str
    names: tuple[tuple[str, str], ...]


def sections() -> Iterator[tuple[str, list[Option]]]:
    """Title and options of each part of the configuration."""
    config = Config()
    parts = {"": config, **{f.name: getattr(config, f.name) for f in dataclasses.fields(Config)}, "faces": CropConfig()}
    for part, title in TITLES.items():
        yield title, list(_options(part, parts[part]))


def _options(part: str, values: Any) -> Iterator[Option]:
    about = {p.arg_name: p.description or "" for p in docstring_parser.parse_from_object(type(values)).params}
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if not dataclasses.is_dataclass(value):
            name = f"{part}.{field.name}" if part else field.name
            flag = "--" + name.replace("_", "-")
            names = tuple(CHOICES.get(name, {}).items())
            off = negated(flag) if isinstance(value, bool) else ""
            yield Option(flag, off, _shown(value), " ".join(about[field.name].split()), names)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def print_options() -> None:
    """Prints a table of each part: options, and below each the names that it takes."""
    console = Console(width=None if Console().is_terminal else 160)
    for title, options in sections():
        table = Table("option", "default", "what it is", title=title, title_justify="left", expand=True)
        for option in options:
            table.add_row(", ".join(filter(None, (option.flag, option.negated))), option.default, option.about)
            for name, about in option.names:
                table.add_row(f"    {name}", "", about)
        console.print(table)


def as_markdown() -> str:
    """The same as a page."""
    lines = [
        "# Options",
        "",
        "Made by `python main.py options --markdown`. The defaults are those of the configuration; a preset "
        "(`--preset demo`, `minilm`, `base`) changes some.",
    ]
    for title, options in sections():
        lines += ["", f"## {title}", "", "| option | default | what it is |", "|---|---|---|"]
        for option in options:
            flags = ", ".join(f"`{flag}`" for flag in (option.flag, option.negated) if flag)
            lines.append(_line(flags, f"`{option.default}`" if option.default else "", option.about))
            lines += [_line(f"&emsp;`{name}`", "", about) for name, about in option.names]
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
