"""`compare`: metrics of several runs and the significance of their differences."""

from __future__ import annotations

from pathlib import Path

from emotion_tf.command_line import RunPaths
from emotion_tf.streams import reserve_stdout
from emotion_tf.terminal import say


def compare(runs: RunPaths, split: str = "test", data: Path | None = None, out: Path | None = None) -> None:
    """Compare runs: options that differ, metrics with intervals, and the significance of the differences.

    Args:
        runs: Two or more folders in saved_models/, evaluated on the same utterances.
        split: Split: train, dev or test.
        data: Data set of the results; by default each run's own (see evaluate --data).
        out: HTML page to write; - is standard output.
    """
    from emotion_tf.evaluation import compare as comparison

    results = [comparison.read_run(path, split, data) for path in runs]
    pairs = comparison.compare(results)
    title = f"{len(results)} runs on {split}{f' of {data}' if data else ''}, {len(results[0].table)} utterances"
    tables = comparison.tables(results, pairs)
    with reserve_stdout(out):
        say(title)
        comparison.print_tables(tables)
        if out is not None:
            provenance = ("Commands", comparison.PROVENANCE_COLUMNS, comparison.provenance_rows(results))
            comparison.write_page(out, [*tables, provenance], title)
            say(f"Page: {out}")
