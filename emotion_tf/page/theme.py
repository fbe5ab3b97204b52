"""Fonts and colours of the page: system fonts, so that nothing is fetched, and enough contrast in light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text(encoding="utf-8")
HEAD = (HERE / "head.html").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Returns Gradio's plain theme, with greys and blues dark enough for small text (WCAG 2.1, 1.4.3)."""
    base = gr.themes.Base(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return base.set(
        body_text_color_subdued="#4b5563", body_text_color_subdued_dark="#c4c4cc",
        block_label_text_color="#4b5563", block_label_text_color_dark="#c4c4cc",
        block_info_text_color="#4b5563", block_info_text_color_dark="#c4c4cc",
        input_placeholder_color="#4b5563", input_placeholder_color_dark="#c4c4cc",
        color_accent="#1d4ed8",
        button_primary_background_fill="#1d4ed8", button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8", button_primary_background_fill_hover_dark="#1e40af",
    )  # fmt: skip
