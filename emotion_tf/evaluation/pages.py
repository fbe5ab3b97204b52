"""Self-contained HTML pages: the Jinja environment of the templates, and pictures as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emotion_tf import files

TYPES = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"<?": "svg+xml"}


def image_uri(data: bytes) -> str:
    """Returns a JPEG, PNG or SVG as a data URI."""
    return f"data:image/{TYPES[data[:2]]};base64,{base64.b64encode(data).decode()}"


def render(template: str, **facts: Any) -> str:
    """Renders a template of this folder. A missing name raises; in `.html` templates values are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["picture"] = image_uri
    environment.filters["share"] = lambda n, total: f"{n / total:.1%}" if total else "-"
    environment.filters["interval"] = _interval
    return environment.get_template(template).render(**facts)


def write(path: Path, template: str, **facts: Any) -> None:
    """Renders a template into a file."""
    files.write_text(path, render(template, **facts))


def _interval(bounds: Sequence[float] | None) -> str:
    """Formats an interval, or says that there are too few utterances for one."""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "too few"
