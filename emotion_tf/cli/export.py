"""`export`: a run as a SavedModel for TF Serving."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from emotion_tf.command_line import Flag
from emotion_tf.errors import UserError
from emotion_tf.quiet import needs_tensorflow


@needs_tensorflow
def export(run: Positional[Path], version: int | None = None, keep: int = 0, verify: Flag = False) -> None:
    """Export a run or an ensemble as a SavedModel for TF Serving: serving/<next version>/ in its folder.

    Args:
        run: a folder in saved_models/; with --verify an export, RUN/serving/<version>.
        version: its number; by default the next free one.
        keep: how many versions stay, the newest and this one; 0: all.
        verify: export nothing: check that an export still keeps to the contract (docs/serving.md).
    """
    from emotion_tf.runs.ensemble import open_run
    from emotion_tf.serving.export import export as export_run
    from emotion_tf.serving.verify import verify as verify_export

    if verify:
        if version is not None or keep:
            raise UserError("--verify checks an export that is there. Expected no --version and no --keep beside it.")
        print(f"{run}: {verify_export(run)}")
    else:
        print(f"Exported: {export_run(open_run(run), version, keep)}")
