"""`export`: exports a run or an ensemble as a SavedModel for TensorFlow Serving."""

from __future__ import annotations

from typing import Annotated

from emotion_tf.command_line import Flag, RunPath, opens_models
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say


@opens_models
@needs_tensorflow
def export(
    run: RunPath,
    version: Annotated[int | None, Range(1, 10**18 - 1)] = None,
    keep: Annotated[int, Range(0, 1_000_000)] = 0,
    verify: Flag = False,
) -> None:
    """Export a run or an ensemble as a SavedModel for TensorFlow Serving: RUN/serving/VERSION.

    Args:
        run: Run or ensemble: its name in saved_models/, or its folder; with --verify, an export.
        version: Version number. Default: the next free one.
        keep: Number of versions to keep: this one and the newest others. 0: all.
        verify: Export nothing, and check that an export fulfils the contract (docs/serving.md).
    """
    from emotion_tf.runs.ensemble import open_run
    from emotion_tf.serving.export import export as export_run
    from emotion_tf.serving.verify import verify as verify_export

    if verify:
        if version is not None or keep:
            raise UserError("--verify checks an existing export. Expected neither --version nor --keep with it.")
        say(f"{run}: {verify_export(run)}")
    else:
        say(f"Exported: {export_run(open_run(run), version, keep)}")
