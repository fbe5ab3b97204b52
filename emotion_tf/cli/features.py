"""`features`: writes the outputs of a tower or of one of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from emotion_tf import locks
from emotion_tf.cluster import check_scheduler
from emotion_tf.command_line import DatasetPath, Flag, RunPath, SchedulerAddress, opens_models
from emotion_tf.config import rules
from emotion_tf.errors import UserError
from emotion_tf.modalities import MODALITIES
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say


@opens_models
@needs_tensorflow
def features(
    run: RunPath,
    data: DatasetPath,
    out: Annotated[Path, rules.Output.FILE, rules.value("FILE")],
    tower: Annotated[str, rules.names((*MODALITIES, "fusion"))] = "fusion",
    layer: Annotated[str, rules.value("LAYER")] = "",
    split: Annotated[str, rules.SPLIT] = "test",
    scheduler: SchedulerAddress = "",
    overwrite: Flag = False,
) -> None:
    """Write the outputs of a tower, or of one of its layers, with the ids of the utterances, as .npz.

    Args:
        run: Run: its name in saved_models/, or its folder.
        data: Folder of a data set in tfrecords/.
        out: File to write, NAME.npz.
        tower: Tower, or fusion for the layers after the towers.
        layer: Layer of the tower; LAYER/INNER inside a network. Empty: the output of the tower. A wrong name prints the
            valid ones.
        split: Split of the data set: train, dev or test.
        scheduler: Address of Dask's scheduler, tcp://HOST:PORT, whose workers compute the shards. Empty: this
            machine does.
        overwrite: Replace an existing file.
    """
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.runs.run import Run
    from emotion_tf.serving.features import write_features
    from emotion_tf.training.evaluate import check_data

    if out.suffix != ".npz":
        raise UserError(f"Invalid `--out`. Expected a file name with the ending .npz. Received: {out}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    if scheduler:
        check_scheduler(scheduler)
    with locks.writer(out):
        folder, dataset = Run(run), Dataset.open(data)
        dataset.verify()
        check_data(folder, dataset)
        shape = write_features(folder, dataset, split, tower, layer, out, scheduler)
    say(f"Features {' x '.join(map(str, shape))} of {split}: {out}")
