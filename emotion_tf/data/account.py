"""The account of a data set made from clips: what became of every row and every clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emotion_tf.data.clip_source import ClipSource
from emotion_tf.data.manifest import SPLITS, Row
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import NO_FACE, OUTSIDE, UNDECODABLE
from emotion_tf.wording import plural

WITH_FACE = "with a face"
MAX_LISTED = 20  # unused clips printed for each problem
MAX_STORED = 10_000  # unused clips in dataset_info.json, whose size is bounded


def summarize(rows: Sequence[Row], problems: Sequence[Sequence[str]], source: ClipSource) -> dict[str, Any]:
    """Counts the rows of a data set by split and problem, and lists the first clips that were not used.

    Args:
        rows: all rows, in any order.
        problems: (problem, detail) of each row, in the order of the shards, split by split; an empty problem: the row
            has a face.
        source: the clips, with the importer's account of the clip files.

    Returns:
        {"rows": {split: {"total", WITH_FACE, problem: count, ...}}, "clips": ..., "not_used": [{row, clip, problem,
        detail}]}.

    Raises:
        RuntimeError: a row is missing or counted twice.
    """
    ordered = _in_order(rows)
    counts: dict[str, Counter[str]] = {}
    for row, (problem, _) in zip(ordered, problems, strict=True):
        counts.setdefault(row.split, Counter())[problem or WITH_FACE] += 1
    if sum(sum(count.values()) for count in counts.values()) != len(rows):
        raise RuntimeError("the account does not add up")
    return {
        "rows": {
            split: {"total": sum(count.values()), **dict(sorted(count.items()))} for split, count in counts.items()
        },
        **source.account,
        "not_used": [
            {"row": list(row.key), "clip": source.segment_names(row), "problem": problem, "detail": detail}
            for row, (problem, detail) in zip(ordered, problems, strict=True)
            if problem not in ("", NO_FACE)
        ][:MAX_STORED],
    }


def check_usable(rows: Sequence[Row], problems: Sequence[Sequence[str]], source: ClipSource) -> None:
    """Raises UserError if clips were opened and none could be used; the arguments are those of `summarize`."""
    details: dict[str, list[str]] = {}
    for row, (problem, detail) in zip(_in_order(rows), problems, strict=True):
        if source.segment_names(row):
            details.setdefault(problem, []).append(detail)
    if not details or not details.keys() <= {UNDECODABLE, OUTSIDE}:
        return
    counts = ", ".join(f"{problem} {len(listed)}" for problem, listed in details.items())
    first = next(detail for listed in details.values() for detail in listed)
    raise UserError(f"None of the clips that were opened can be used: {counts}. First: {first}")


def _in_order(rows: Sequence[Row]) -> list[Row]:
    return [row for split in SPLITS for row in rows if row.split == split]


def format_lines(account: Mapping[str, Any]) -> list[str]:
    """Returns the account as text: a line for the rows and the clips of each split, notes, and the unused clips."""
    lines = []
    for kind in ("rows", "clips"):
        for split, count in account.get(kind, {}).items():
            rest = ", ".join(f"{name} {n}" for name, n in count.items() if name != "total")
            lines.append(f"{split}: {plural(count['total'], kind.removesuffix('s'))}: {rest}")
    lines += [f"note: {note}" for note in account.get("notes", [])]
    listed: Counter[str] = Counter()
    for entry in account["not_used"]:
        listed[entry["problem"]] += 1
        if listed[entry["problem"]] <= MAX_LISTED:
            reason = entry["problem"] + (f": {entry['detail']}" if entry["detail"] else "")
            lines.append(f"not used: {' '.join(entry['row'])} ({', '.join(entry['clip']) or '-'}): {reason}")
    unused: Counter[str] = Counter()
    for count in account.get("rows", {}).values():
        unused.update({problem: n for problem, n in count.items() if problem not in ("total", WITH_FACE, NO_FACE)})
    hidden = {problem: unused[problem] - min(listed[problem], MAX_LISTED) for problem in {**listed, **unused}}
    more = [f"{n} more: {problem}" for problem, n in hidden.items() if n > 0]
    stored = "them all" if listed == unused else f"the first {MAX_STORED:,}"
    return lines + [f"not used: {', '.join(more)}; dataset_info.json names {stored}"] * bool(more)
