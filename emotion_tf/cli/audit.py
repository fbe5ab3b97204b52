"""`audit`: writes a page about a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from emotion_tf.command_line import DatasetPath
from emotion_tf.config import rules
from emotion_tf.config.rules import Output
from emotion_tf.errors import UserError
from emotion_tf.progress import stage
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say

SHEET, PAGE = "audit.png", "audit.html"


@needs_tensorflow
def audit(data: DatasetPath, root: Annotated[Path | None, rules.value("DIR")] = None) -> None:
    """Write a page about a data set (audit.html) and a contact sheet of its faces (audit.png) into its folder.

    Args:
        data: Folder of a data set in tfrecords/.
        root: Folder of the clips, if they were moved, or if somebody else prepared the data set.
    """
    from emotion_tf.data.audit import gather_facts
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation import audit_page

    if root is not None and not root.is_dir():
        raise UserError(f"No such folder: --root {root}. Expected the folder of the clips.")
    dataset = Dataset.open(data)
    folder = dataset.path
    for name in (SHEET, PAGE):
        Output.FILE.check("DATASET", folder / name)
    dataset.verify()
    with stage(f"looking at {data}"):
        facts = gather_facts(dataset, root)
    with stage("drawing the page"):
        audit_page.write_sheet(folder / SHEET, facts)
        audit_page.write_page(folder / PAGE, facts)
    if dataset.stage:
        for name in (SHEET, PAGE):
            dataset.stage.store.upload(folder / name, name)
    say(f"Page: {folder / PAGE}")
    say(f"Contact sheet: {folder / SHEET}")
