"""Colours of pages and pictures. Red supports a class, blue opposes it; nothing else is red or blue."""

from __future__ import annotations

from typing import Any

FOR, AGAINST, NEUTRAL = (214, 69, 55), (52, 110, 191), (120, 120, 120)
"""RGB of what supports a class, of what opposes it, and of values without a sign."""
INK, GREY, LINE = "#222222", "#7a7a7a", "#d9d9d9"
FIRST, SECOND = "#0f766e", "#b4600b"
"""Colours of lines, dots and intervals."""
MAX_OPACITY = 0.65
"""Opacity of a full cell of a confusion matrix, on which light and dark text can be read."""
DARK = {INK: "#e6e6e6", GREY: "#9a9ea5", LINE: "#3f4349", FIRST: "#4fc3b0", SECOND: "#f0a95c"}
"""Colour on a light page -> colour on a dark one."""
FIGURE: dict[Any, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
}
"""Matplotlib's settings for figures on pages."""


def hex_code(rgb: tuple[int, int, int]) -> str:
    """Returns a colour as Matplotlib and CSS write it, such as #d64537."""
    return "#" + bytes(rgb).hex()
