"""Model cards (Mitchell 2019, "Model Cards for Model Reporting"): MODEL_CARD.md of a run, an ensemble or an export."""

from __future__ import annotations

from pathlib import Path

from emotion_tf import files, weights
from emotion_tf.config import Config, read_config
from emotion_tf.evaluation import before_use, calibration, pages
from emotion_tf.evaluation.results import Metrics, read_metrics
from emotion_tf.evaluation.vote import METHODS, EnsembleInfo, read_ensemble_info
from emotion_tf.folders import ENSEMBLE
from emotion_tf.run_info import FILE, Corpus, read_run_info

NAME = "MODEL_CARD.md"
SPLITS = ("test", "dev")


def text(run: Path, name: str = "") -> str:
    """Returns the card of a run or an ensemble, with its results if it was evaluated; `name`: if not the folder's."""
    name = name or run.name
    if (run / ENSEMBLE).is_file():
        return _ensemble_card(run, name)
    config, about = read_config(run / "config.json"), read_run_info(run)
    return pages.render(
        "model_card.md",
        name=name,
        about=about,
        corpus=about.corpus,
        config=config,
        branches={tower: getattr(config, tower).branches for tower in config.towers},
        licences=_licences(config),
        splits=_splits(run),
        calibrated=(run / calibration.FILE).exists(),
        before_use=before_use,
    )


def _licences(config: Config) -> list[str]:
    """Returns a sentence on the source and licence of each pretrained part of the model."""
    parts = []
    if config.uses_bert:
        parts.append(("The encoder", config.text.encoder))
    if config.uses_text and config.text.embeddings:
        parts.append(("The word embeddings", config.text.embeddings))
    for name in config.face.branches if config.uses_face else ():
        if name in ("fer", "encoder"):
            parts.append(("A face network", "fer" if name == "fer" else config.face.encoder))
        elif name != "cnn" and config.face.weights == "imagenet":
            parts.append((f"The face network {name}", "the ImageNet weights of keras.applications"))
    return [f"{part} is initialised from {name}: {_terms(name)}." for part, name in parts]


def _terms(name: str) -> str:
    row = weights.TABLE.get(name)
    return f"{row.source}; {row.licence}" if row else "licence of its publisher"


def _ensemble_card(path: Path, name: str) -> str:
    info = read_ensemble_info(path)
    return pages.render(
        "ensemble_card.md",
        name=name,
        corpus=_corpus_of_members(path, info),
        about=info,
        method=METHODS[info.vote.method],
        splits=_splits(path),
        before_use=before_use,
    )


def _corpus_of_members(path: Path, info: EnsembleInfo) -> Corpus:
    """Returns the corpus that the members share; empty if a member is not there any more."""
    members = [path / member.path for member in info.members]
    corpora = {read_run_info(run).corpus for run in members if (run / FILE).exists()}
    return corpora.pop() if len(corpora) == 1 else ""


def _splits(path: Path) -> dict[str, Metrics]:
    metrics = read_metrics(path) if (path / "metrics.json").exists() else {}
    return {split: metrics[split] for split in SPLITS if split in metrics}


def write(run: Path) -> Path:
    """Writes the card into the run's folder, and returns its path."""
    files.write_text(run / NAME, text(run))
    return run / NAME
