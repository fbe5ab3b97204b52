"""The verbs in groups: one row each. A new verb is a row here and a module with its function."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        name: name, such as `prepare table`.
        usage: main arguments, for the overview.
        summary: one line for the overview.
        run: `module:function`, in a module of `emotion_tf.cli` or one with a full name. It is imported when the verb is
            called; the parameters of the function are the options.
        arguments: `module:function` that parses the command line to the argument of `run`, for a verb whose defaults
            depend on other options, such as --preset.
        is_report: whether what it prints is all that it makes; it ends when nobody reads that. Others go on.
    """

    name: str
    usage: str
    summary: str
    run: str
    arguments: str = ""
    is_report: bool = False


GROUPS = {
    "Data": (
        Verb("prepare table", "MANIFEST --out DIR", "a CSV of utterances and face pictures", "prepare:prepare_table"),
        Verb("prepare clips", "TABLE --out DIR", "a CSV of utterances and video clips", "prepare:prepare_clips"),
        Verb("prepare meld", "--root DIR --out DIR", "MELD as it was unpacked", "prepare:prepare_meld"),
        Verb("prepare faces", "DIR --out DIR", "folders of labelled faces, for a face tower", "prepare:prepare_faces"),
        Verb("prepare demo", "", "the built-in demo data set", "prepare:prepare_demo"),
        Verb("audit", "DATASET", "a page of faces, selections and gaps", "audit:audit"),
    ),
    "Training": (
        Verb("weights list", "", "pretrained networks by name", "weights:weights_list", is_report=True),
        Verb("weights fetch", "NAME", "download one of them", "weights:fetch"),
        Verb("train", "", "train a run (by default on the demo data)", "train:train", "arguments:train_arguments"),
        Verb("crossval", "", "cross-validate by dialogue", "crossval:crossval", "arguments:crossval_arguments"),
        Verb("tune", "", "search hyperparameters", "tuning.verb:tune", "tuning.arguments:tune_arguments"),
    ),
    "Results": (
        Verb("runs", "", "list the runs in saved_models/", "runs:runs", is_report=True),
        Verb("evaluate", "RUN", "accuracy, F1, confusion; --report: a page", "evaluate:evaluate"),
        Verb("compare", "RUN RUN ...", "runs or, --with, configurations", "compare:compare"),
        Verb("ensemble", "RUN RUN ... --name NAME", "runs that vote", "ensemble:ensemble"),
    ),
    "Predictions": (
        Verb("predict", "RUN --text T --face F", "the emotion of one utterance", "predict:predict", is_report=True),
        Verb("predict-table", "RUN TABLE --out CSV", "the emotions of a table of utterances", "predict:predict_table"),
        Verb("predict-film", "RUN CLIP SRT --out D", "the emotions of a film with subtitles", "predict:predict_film"),
        Verb("explain", "RUN --text T --face F", "words, face regions, modalities; or --data", "explain:explain"),
        Verb("features", "RUN DATA --out X.npz", "outputs of a tower or of any layer", "features:features"),
        Verb("demo", "[RUN]", "a page on 127.0.0.1 to try runs on", "demo:demo"),
    ),
    "Serving": (
        Verb("export", "RUN", "a SavedModel for TF Serving; or --verify one", "export:export"),
        Verb("serve", "RUN", "start TF Serving with a run's newest export", "serve:serve"),
    ),
    "Reference": (
        Verb("options", "", "every option of the configuration", "options:options", is_report=True),
        Verb("completion", "SHELL", "completion for bash, zsh or fish", "completion:completion", is_report=True),
    ),
}  # fmt: skip
VERBS = tuple(verb for group in GROUPS.values() for verb in group)
