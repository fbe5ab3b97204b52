"""Names and folders of data sets and runs, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.files import Kind
from emotion_tf.program import program

DEMO = Path(Config.data)
"""The demo data set, which `train` and `tune` draw if it is missing."""
RUNS = Path("saved_models")
ENSEMBLE = "ensemble.json"
"""File in the folder of an ensemble, in place of the config.json and run.json of a run."""
ENSEMBLE_KIND = Kind("ensemble", (ENSEMBLE,))
RUN = Kind("run", ("run.json", "config.json"), "model.keras", ("checkpoint/last.npz",))
CROSS_VALIDATION = Kind(
    "cross-validation",
    ("crossval.json", "config.json"),
    "metrics.json",
    ("*/checkpoint/last.npz", "*/model.keras", "*/held_out.csv"),
)


def other_results(run: Path, data: Path) -> Path:
    """Returns the folder of a run's results on another data set than its own."""
    return run / "elsewhere" / data.resolve().name


def check_name(name: str, folder: Path | None = None) -> None:
    """Raises UserError unless `name` is a folder directly inside saved_models/ or `folder`: --overwrite deletes it."""
    if name in ("", ".", "..") or "\0" in name or Path(name).name != name:
        raise UserError(
            f"Invalid `--name`. Expected the name of a folder in {folder or RUNS}/, without a path. Received: {name!r}."
        )


def newest_unfinished() -> Path:
    """Returns the run in saved_models/ that was interrupted last. Raises UserError if there is none."""
    unfinished = (path for path in RUNS.glob("*/checkpoint") if not (path.parent / "model.keras").exists())
    runs = sorted(unfinished, key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"Nothing to resume: {RUNS}/ has no interrupted run. Train one with: {program()} train")
    return runs[-1].parent


def stem(config: Config) -> str:
    """Returns data set and towers of a configuration, such as `demo-text-face`."""
    return "-".join((Path(config.data).name, *config.towers))


def free_name(config: Config, folder: Path | None = None) -> str:
    """Returns `stem` with the next free number in saved_models/ or `folder`."""
    names = (f"{stem(config)}-{n}" if n > 1 else stem(config) for n in range(1, 100_000))
    return next(name for name in names if not ((folder or RUNS) / name).exists())
