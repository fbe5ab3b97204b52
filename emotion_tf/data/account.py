"""What became of every row and every clip: nothing is lost silently, and the counts must add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emotion_tf.data.films import Films
from emotion_tf.data.manifest import SPLITS, Row
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import NO_FACE

USED = "with a face"
NAMED = 20  # clips that are named for each reason not to use them


def settle(rows: Sequence[Row], problems: Sequence[Sequence[str]], films: Films) -> dict[str, Any]:
    """The account of a data set made from clips.

    Args:
        rows: all rows, in any order; `problems` is in the order of the shards: split by split.
        problems: (problem, detail) of each row; an empty problem: its face is in the record.
        films: the clips, with their own account if the importer made one.

    Returns:
        {"rows": {split: {"total", USED, problem: count, ...}}, "clips": ..., "not_used": [row, clip, problem, detail]}.

    Raises:
        UserError: not one of the clips that were opened could be decoded.
        RuntimeError: rows are lost or counted twice.
    """
    ordered = [row for split in SPLITS for row in rows if row.split == split]
    counts: dict[str, Counter[str]] = {}
    for row, (problem, _) in zip(ordered, problems, strict=True):
        counts.setdefault(row.split, Counter())[problem or USED] += 1
    if sum(sum(count.values()) for count in counts.values()) != len(rows):
        raise RuntimeError("the account does not add up")
    opened = [p for row, (p, _) in zip(ordered, problems, strict=True) if films.names(row)]
    if opened and all(p == "cannot be decoded" for p in opened):
        raise UserError(f"Not one of {len(opened)} clips can be decoded. First: {_first_detail(problems)}")
    return {
        "rows": {
            split: {"total": sum(count.values()), **dict(sorted(count.items()))} for split, count in counts.items()
        },
        **films.account,
        "not_used": [
            {"row": list(row.key), "clip": films.names(row), "problem": problem, "detail": detail}
            for row, (problem, detail) in zip(ordered, problems, strict=True)
            if problem not in ("", NO_FACE)
        ],
    }


def _first_detail(problems: Sequence[Sequence[str]]) -> str:
    return next(detail for problem, detail in problems if problem == "cannot be decoded")


def lines(account: dict[str, Any]) -> list[str]:
    """The account for people: a line a split for rows and for clips, and the clips that were not used, by name."""
    said = []
    for kind in ("rows", "clips"):
        for split, count in account.get(kind, {}).items():
            rest = ", ".join(f"{name} {n}" for name, n in count.items() if name != "total")
            said.append(f"{split}: {count['total']} {kind}: {rest}")
    said += [f"note: {note}" for note in account.get("notes", [])]
    told: Counter[str] = Counter()
    for one in account["not_used"]:
        told[one["problem"]] += 1
        if told[one["problem"]] <= NAMED:
            what = one["problem"] + (f": {one['detail']}" if one["detail"] else "")
            said.append(f"not used: {' '.join(one['row'])} ({', '.join(one['clip']) or '-'}): {what}")
    more = [f"{n - NAMED} more: {problem}" for problem, n in told.items() if n > NAMED]
    return said + [f"not used: {', '.join(more)}; dataset_info.json names them all"] * bool(more)
