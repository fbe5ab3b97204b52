"""Self-contained HTML pages: one place for the templates' environment, and for pictures inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from emotion_tf import files

TYPES = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"<?": "svg+xml"}


def picture(data: bytes) -> str:
    """The bytes of a JPEG, PNG or SVG as the address of a picture inside a page."""
    return f"data:image/{TYPES[data[:2]]};base64,{base64.b64encode(data).decode()}"


def drawn(figure: Figure, kind: str = "png") -> str:
    """The same of a figure, which is closed; `kind` png, or svg for lines that stay sharp in print."""
    made = io.BytesIO()
    figure.savefig(made, dpi=100, format=kind, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
    return picture(made.getvalue())


def render(template: str, **facts: Any) -> str:
    """A template of this folder with its facts. Every name that it uses must be there; HTML in values is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["picture"] = picture
    environment.filters["share"] = lambda n, total: f"{n / total:.1%}" if total else "-"
    environment.filters["between"] = _between
    return environment.get_template(template).render(**facts)


def write(path: Path, template: str, **facts: Any) -> None:
    """Renders a template into a file."""
    files.write_text(path, render(template, **facts))


def _between(bounds: tuple[float, float] | list[float] | None) -> str:
    """An interval as it is printed; nothing where there is none."""
    if bounds is None or bounds[0] is None or bounds[0] != bounds[0]:
        return ""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
