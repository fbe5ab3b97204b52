"""`audit`: a look at a data set."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from emotion_tf.quiet import needs_tensorflow


@needs_tensorflow
def audit(data: Positional[Path], root: Path | None = None) -> None:
    """Look at a data set: a page (audit.html) and a contact sheet (audit.png) in its folder.

    Args:
        data: a folder in tfrecords/.
        root: folder of the clips, when they are no longer where the data set was prepared from.
    """
    from emotion_tf.data.audit import gather_facts
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation import audit_page

    dataset = Dataset.open(data)
    dataset.verify()
    facts = gather_facts(dataset, root)
    audit_page.write_sheet(data / "audit.png", facts)
    audit_page.write_page(data / "audit.html", facts)
    print(f"Page: {data / 'audit.html'}")
    print(f"Contact sheet: {data / 'audit.png'}")
