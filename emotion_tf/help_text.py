"""The text of `VERB --help`: the options that tyro lists, in groups, folded to the width of the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

RAW_WIDTH = 129
"""Columns of the text that tyro prints: the most that it does not print as two columns of boxes."""
WIDEST = 24
"""Characters of an option and its values that leave room for the description on the same line."""
NARROW = 66
"""Columns below which a description begins on its own line."""
SHORT = 20
"""Characters of a default that stands on one line with the word `default`."""
NO_DEFAULT = ("None", "''", "", "False", "[]", "()", "{}")


@dataclass
class Entry:
    """An option or an argument.

    Attributes:
        name: the option, or the options that switch it on and off, with its values.
        about: its description.
        is_required: whether it has no default.
    """

    name: str
    about: str = ""
    is_required: bool = False


@dataclass
class Group:
    """Options under a title."""

    title: str
    about: str = ""
    entries: list[Entry] = field(default_factory=list)


def render(raw: str, prog: str, groups: Mapping[str, str], width: int, title: str = "{}:") -> str:
    """Returns the help of a verb.

    Args:
        raw: what tyro prints in `RAW_WIDTH` columns, with boxes and without colours.
        prog: the words of the command before its options.
        groups: option -> title of its group; the others keep those of tyro.
        width: number of columns.
        title: format of the title of a group, such as one with the codes for bold.
    """
    description, parsed = _read(raw)
    arguments = [entry for group in parsed if group.title == "Arguments" for entry in group.entries]
    listed = _regroup(parsed, groups)
    required = [entry.name for group in parsed for entry in group.entries if entry.is_required and entry.name[0] == "-"]
    words = [entry.name if entry.is_required else f"[{entry.name}]" for entry in arguments]
    lines = [*_fold(" ".join(["usage:", prog, *words, *required, "[options]"]), "", " " * 4, width), ""]
    for paragraph in description:
        lines += [*_fold(paragraph, "", "", width), ""]
    indent = WIDEST + 4 if width >= NARROW else 8
    for group in listed:
        lines += [title.format(group.title), *_fold(group.about, "  ", "  ", width), *[""] * bool(group.about)]
        for entry in group.entries:
            lines += _lines(entry, indent, width)
        lines.append("")
    return "\n".join(lines)


def _read(raw: str) -> tuple[list[str], list[Group]]:
    """Returns the paragraphs of the description, and the groups, of what tyro prints."""
    description: list[str] = []
    groups: list[Group] = []
    for line in raw.splitlines():
        if title := re.match(r"╭─ (.*?) ─", line):
            groups.append(Group({"positional arguments": "Arguments"}.get(title[1], title[1].capitalize())))
        elif line.startswith("│ "):
            _read_line(groups[-1], line[2:].rstrip(" │"))
        elif line.strip() and not line.startswith(("usage:", "╰", " ")):
            description.append(line.strip())
    for entry in (entry for group in groups for entry in group.entries):
        _read_default(entry)
    return description, groups


def _read_line(group: Group, text: str) -> None:
    if not text or text.startswith("─"):
        return
    if text.startswith(" ") and group.entries:
        group.entries[-1].about += f" {text.strip()}"
    elif text.startswith("-") or group.title == "Arguments":
        name, _, about = text.partition("  ")
        group.entries.append(Entry(_values(name), about.strip()))
    elif group.entries:  # the rest of a long list of names
        group.entries[-1].name = _values(group.entries[-1].name + text)
    else:
        group.about = f"{group.about} {text}".strip()


def _values(name: str) -> str:
    """Returns an option with its values as manuals write them: `FILE` for `{None}|FILE`, `N ...` for `[N [N ...]]`."""
    return re.sub(r"\[(\S+) \[\1 \.\.\.\]\]", r"\1 ...", name.replace("{None}|", ""))


def _read_default(entry: Entry) -> None:
    """Takes the note on the default from the description of an option, and adds it where it says something.

    A pair of flags, such as `--face.augment, --face.no-augment`, becomes `--face.[no-]augment`.
    """
    about, note = entry.about.strip(), ""
    if match := re.search(r"\s*\((required|default: ?(.*))\)$", about):
        about, note = about[: match.start()], match[2] or ""
        entry.is_required = match[1] == "required"
    if pair := re.fullmatch(r"(--[\w-]+\.)([\w-]+), \1no-\2", entry.name):
        entry.name = f"{pair[1]}[no-]{pair[2]}"
        note = {"True": "on", "False": "off"}.get(note, note)
    elif note in NO_DEFAULT:
        note = ""
    space = "\N{NO-BREAK SPACE}" if len(note) < SHORT else " "
    entry.about = f"{about} [default:{space}{note}]" if note else about
    if entry.name.startswith("-h"):
        entry.about = "Show this help."


def _regroup(parsed: list[Group], titles: Mapping[str, str]) -> list[Group]:
    """Returns the groups without empty ones; options with a title of their own are in the group of that title."""
    groups: dict[str, Group] = {}
    for group in parsed:
        for entry in group.entries:
            title = titles.get(entry.name.split()[0].rstrip(","), group.title)
            about = group.about if title == group.title else ""
            groups.setdefault(title, Group(title, about)).entries.append(entry)
    for group in groups.values():  # what is required first, and the help last
        group.entries.sort(key=lambda entry: (entry.name.startswith("-h"), not entry.is_required))
    return list(groups.values())


def _lines(entry: Entry, indent: int, width: int) -> list[str]:
    name = _fold(entry.name, "  ", " " * 6, width)
    about = _fold(entry.about, " " * indent, " " * indent, width)
    if indent > WIDEST and len(name) == 1 and len(name[0]) < indent - 1 and about:
        return [name[0].ljust(indent) + about[0].lstrip(), *about[1:]]
    return name + about


def _fold(text: str, first: str, later: str, width: int) -> list[str]:
    """Folds a text between words; a list of names that is longer than a line after its commas, too."""
    if any(len(word) > width - len(later) for word in text.split()):
        text = text.replace(",", ", ")
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def titles_of(groups: Mapping[str, type]) -> Iterator[tuple[str, str]]:
    """Yields each option of some dataclasses with the title of its group, from the name of its class."""
    for option, owner in groups.items():
        words = re.findall(r"[A-Z][a-z]+", owner.__name__)
        yield option, f"{' '.join(words[:-1])} options".capitalize()
