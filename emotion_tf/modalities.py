"""The modalities, in the order in which reports and patterns of presence count them."""

from __future__ import annotations

MODALITIES = ("text", "face")
