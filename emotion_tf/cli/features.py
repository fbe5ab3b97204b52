"""`features`: the outputs of a tower or of any of its layers."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from emotion_tf.command_line import Flag
from emotion_tf.errors import UserError
from emotion_tf.quiet import needs_tensorflow


@needs_tensorflow
def features(
    run: Positional[Path],
    data: Positional[Path],
    out: Path,
    tower: str = "fusion",
    layer: str = "",
    split: str = "test",
    overwrite: Flag = False,
) -> None:
    """Write the features of a tower or of any of its layers, with the ids of their utterances, as .npz.

    Args:
        run: a folder in saved_models/.
        data: a folder in tfrecords/.
        out: the file, NAME.npz.
        tower: text, face, or fusion (the layers that join them).
        layer: a layer of the tower, LAYER/INNER inside a network; empty: the tower's output. A wrong one lists all.
        split: train, dev or test.
        overwrite: replace the file that is there.
    """
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.runs.run import Run
    from emotion_tf.serving.features import write_features
    from emotion_tf.training.evaluate import check_data

    if out.suffix != ".npz":
        raise UserError(f"Invalid `--out`. Expected a name that ends in .npz. Received: {out}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    folder, dataset = Run(run), Dataset.open(data)
    dataset.verify()
    check_data(folder, dataset)
    shape = write_features(folder, dataset, split, tower, layer, out)
    print(f"Features {' x '.join(map(str, shape))} of {split}: {out}")
