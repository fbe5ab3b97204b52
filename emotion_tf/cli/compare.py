"""`compare`: metrics of several runs and the significance of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from emotion_tf.command_line import IS_RUN, RunPaths
from emotion_tf.config import rules
from emotion_tf.errors import UserError
from emotion_tf.streams import reserve_stdout
from emotion_tf.terminal import say
from emotion_tf.wording import plural

if TYPE_CHECKING:
    from emotion_tf.evaluation.compare import RunResults, TitledTable
    from emotion_tf.evaluation.significance import Difference


def compare(
    runs: RunPaths,
    other: Annotated[tuple[Path, ...] | None, tyro.conf.arg(name="with", metavar="RUN ..."), IS_RUN] = None,
    split: Annotated[str | None, rules.SPLIT] = None,
    data: Annotated[Path | None, rules.value("DATASET")] = None,
    out: Annotated[Path | None, rules.Output.FILE, rules.value("FILE")] = None,
) -> None:
    """Compare runs: options that differ, metrics with intervals, and the significance of the differences.

    Args:
        runs: Two or more runs (names in saved_models/, or folders), evaluated on the same utterances. With --with: the
            seeds of one configuration; NAME stands for NAME-seed0, NAME-seed1, ...; or a folder of `crossval` with
            repeats.
        other: The seeds of a second configuration, to compare the two over seeds and dialogues. A claim needs five
            seeds on each side.
        split: Split: train, dev or test (the default). A cross-validation has its out-of-fold predictions alone.
        data: Data set of the results; by default each run's own (see evaluate --data).
        out: HTML page to write; - is standard output.
    """
    from emotion_tf.evaluation import compare as comparison

    if other == ():
        raise UserError("Expected the runs of a second configuration after --with. Received none.")
    comparison_of_runs = _configurations(runs, other, split, data) if other else _runs(runs, split or "test", data)
    results, tables, differences, place, notes, method = comparison_of_runs
    where = f"{place} of {data}" if data else place
    title = f"{plural(len(results), 'run')} on {where}, {plural(len(results[0].table), 'utterance')}"
    with reserve_stdout(out):
        say(title)
        comparison.print_tables(tables)
        for note in notes:
            say(note)
        if out is not None:
            from emotion_tf.evaluation.compare_page import write_page

            provenance = ("Commands", comparison.PROVENANCE_COLUMNS, comparison.provenance_rows(results))
            write_page(out, [*tables, provenance], differences, title, method)
            say(f"Page: {out}")


Comparison = tuple[
    "Sequence[RunResults]", "Sequence[TitledTable]", "Sequence[tuple[str, Difference]]", str, "Sequence[str]", str
]
"""Results, tables, differences with their names, the split in words, notes, and the method in words."""


def _runs(runs: Sequence[Path], split: str, data: Path | None) -> Comparison:
    """Compares each pair of runs."""
    from emotion_tf.evaluation import compare as comparison
    from emotion_tf.evaluation.seeds import is_configuration

    for path in runs:
        if is_configuration(path):
            raise UserError(f"{path} stands for several runs. Expected a second configuration: --with RUN ...")
    results = comparison.distinguish([comparison.read_run(path, split, data) for path in runs])
    pairs = comparison.compare(results)
    differences = [(f"{pair.better} - {pair.other}", pair.f1) for pair in pairs]
    return results, comparison.tables(results, pairs), differences, split, [], comparison.METHOD


def _configurations(runs: Sequence[Path], other: Sequence[Path], split: str | None, data: Path | None) -> Comparison:
    """Compares two configurations over seeds and dialogues."""
    from emotion_tf.evaluation import seeds

    first, second = seeds.distinguish(*(seeds.read_configuration(side, split, data) for side in (runs, other)))
    difference, parts = seeds.compare_configurations(first, second)
    unused = seeds.unused_seeds([*runs, *other])
    notes = [f"Left out, by their names other seeds: {', '.join(unused)}"] if unused else []
    tables = seeds.tables(first, second, difference, parts)
    differences = [(f"{first.name} - {second.name}", difference)]
    return [*first.runs, *second.runs], tables, differences, first.split, notes, seeds.METHOD
