"""What several test files do alike."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def train_run(config, path, encoder=None, say=lambda line: None, face_files=None):
    """Trains a run into `path` as the command line does."""
    from emotion_tf.data import records
    from emotion_tf.training.run_folder import RunFolder
    from emotion_tf.training.train import Trainer

    trainer = Trainer(config, RunFolder(path), records.read_info(Path(config.data)), encoder, say, face_files)
    trainer.start("pytest")
    trainer.fit()
    return trainer
