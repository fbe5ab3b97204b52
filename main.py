"""The command line: `python main.py VERB`. Wiring only; TensorFlow is imported when a verb needs it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

from emotion_tf import cli
from emotion_tf.errors import UserError
from emotion_tf.verbs.crossval import crossval
from emotion_tf.verbs.demo import demo
from emotion_tf.verbs.ensemble import ensemble
from emotion_tf.verbs.explain import explain
from emotion_tf.verbs.predict import predict
from emotion_tf.verbs.prepare import audit, prepare_clips, prepare_demo, prepare_faces, prepare_meld, prepare_table
from emotion_tf.verbs.pretrained import fetch, weights_list
from emotion_tf.verbs.run import compare, evaluate, export, features, options, runs
from emotion_tf.verbs.serve import serve
from emotion_tf.verbs.train import train
from tuning.arguments import tune_arguments
from tuning.verb import tune

VERBS: dict[str, dict[str, Callable[..., None]] | Callable[..., None]] = {
    "prepare": {
        "table": prepare_table,
        "clips": prepare_clips,
        "meld": prepare_meld,
        "faces": prepare_faces,
        "demo": prepare_demo,
    },
    "audit": audit,
    "weights": {"list": weights_list, "fetch": fetch},
    "train": train,
    "crossval": crossval,
    "tune": tune,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "demo": demo,
    "compare": compare,
    "ensemble": ensemble,
    "export": export,
    "serve": serve,
    "features": features,
    "runs": runs,
    "options": options,
}
HELP = """usage: python main.py VERB [options]      (VERB --help tells more)

  prepare table MANIFEST --out DIR   a CSV of utterances and face pictures -> aligned TFRecords
  prepare clips TABLE --out DIR      a CSV of utterances and video clips -> the same
  prepare meld --root DIR --out DIR  MELD as it was unpacked -> the same, with an account of rows and clips
  prepare faces DIR --out DIR        a folder of labelled faces, one folder an emotion -> the same, for a face tower
  prepare demo                       the built-in demo data set
  audit DATASET                      a page and a contact sheet: faces, choices, what is missing
  weights list | fetch NAME          pretrained weights by name
  train                              train a run (nothing prepared: on the demo data set)
  crossval                           cross-validate a configuration by dialogue; predictions of every utterance
  tune                               search hyperparameters; ends with best.json for train --config
  evaluate RUN                       accuracy, F1, confusion matrix, predictions; --report: a page with intervals
  predict RUN --text T --face F      emotion of one utterance (or --clip), of a --table, of a film with --subtitles
  explain RUN --text T --face F      what moved it: words, face, modality; or of a data set: --data DATA
  demo [RUN]                         a page on 127.0.0.1 to try runs on: words, pictures, clips, films
  compare RUN RUN ...                runs side by side, with intervals and tests of their differences
  ensemble RUN RUN ... --name NAME   runs that vote, beside their members; an ensemble predicts and exports as a run
  export RUN                         one SavedModel for TF Serving; --verify: whether one still keeps to its contract
  serve RUN                          TF Serving, where it is installed, with the newest export of a run
  features RUN DATA --out X.npz      the features of a tower or of any layer, with their ids
  runs                               the runs in saved_models/
  options                            every option of the configuration and the names that it takes
"""


def dispatch(args: list[str]) -> None:
    """Runs the verb that the arguments name."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    cli.check_verb(args[0], list(VERBS))
    verb, rest, prog = VERBS[args[0]], args[1:], f"main.py {args[0]}"
    if isinstance(verb, dict):
        if not rest or rest[0] in ("-h", "--help"):
            print(
                "\n".join(
                    [
                        f"usage: python {prog} {{{','.join(verb)}}}",
                        *(f"  {n:<8} {(f.__doc__ or '').splitlines()[0]}" for n, f in verb.items()),
                    ]
                )
            )
            return
        cli.check_verb(rest[0], list(verb))
        verb, rest, prog = verb[rest[0]], rest[1:], f"{prog} {rest[0]}"
    if verb is train:
        train(cli.train_arguments(rest), shlex.join(["main.py", *args]))
    elif verb is crossval:
        crossval(cli.crossval_arguments(rest), shlex.join(["main.py", *args]))
    elif verb is tune:
        tune(tune_arguments(rest), shlex.join(["main.py", *args]))
    else:
        cli.parse(verb, rest, prog)()


def main() -> int:
    """Exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted. `train --resume` goes on with a training, `tune --resume` with a search; `crossval` and a "
            "`prepare` go on when run again.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
