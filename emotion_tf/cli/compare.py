"""`compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional


def compare(
    runs: Positional[tuple[Path, ...]], split: str = "test", data: Path | None = None, out: Path | None = None
) -> None:
    """Set runs side by side: what differs in them, metrics with intervals, and which differences are chance.

    Args:
        runs: two or more folders in saved_models/, evaluated on the same utterances.
        split: train, dev or test.
        data: another data set than the runs', on which they were evaluated with --data.
        out: HTML page to write as well.
    """
    from emotion_tf.evaluation import compare as comparison

    found = [comparison.read_run(path, split, data) for path in runs]
    pairs = comparison.compare(found)
    title = f"{len(found)} runs on {split}{f' of {data}' if data else ''}, {len(found[0].table)} utterances"
    shown = comparison.tables(found, pairs)
    print(title)
    comparison.print_tables(shown)
    if out is not None:
        made = ("Made by", comparison.MADE_COLUMNS, comparison.made_rows(found))
        comparison.write_page(out, [*shown, made], title)
        print(f"Page: {out}")
