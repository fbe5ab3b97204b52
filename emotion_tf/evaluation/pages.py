"""Self-contained HTML pages: the Jinja environment of the templates, and pictures as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emotion_tf import files
from emotion_tf.evaluation.colours import AGAINST, FOR
from emotion_tf.program import program
from emotion_tf.wording import plural

TYPES = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"<?": "svg+xml"}


def image_uri(data: bytes) -> str:
    """Returns a JPEG, PNG or SVG as a data URI."""
    return f"data:image/{TYPES[data[:2]]};base64,{base64.b64encode(data).decode()}"


def environment(folder: Path, autoescape: bool = True) -> Environment:
    """Returns the environment of the templates in a folder, which may include those of this one.

    A missing name raises. Values are escaped, unless `autoescape` is false. Templates name the command that the user
    types as `program()`.
    """
    result = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    result.filters |= {"picture": image_uri, "percent": percent, "interval": _interval}
    result.filters["plural"] = plural
    result.filters["share"] = lambda n, total: percent(n / total) if total else "-"
    result.globals |= {"FOR": ", ".join(map(str, FOR)), "AGAINST": ", ".join(map(str, AGAINST))}
    result.globals["program"] = program
    return result


def render(template: str, **facts: Any) -> str:
    """Renders a template of this folder; in `.html` templates values are escaped."""
    templates = environment(Path(__file__).parent, template.endswith(".html"))
    return templates.get_template(template).render(**facts)


def percent(share: float) -> str:
    """Formats a share. All percentages of a page have one decimal."""
    return f"{100 * share:.1f} %"


def write(path: Path, template: str, **facts: Any) -> None:
    """Renders a template into a file."""
    files.write_text(path, render(template, **facts))


def _interval(bounds: Sequence[float] | None) -> str:
    """Formats an interval, or says that there are too few utterances for one."""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "too few"
