"""Who may import whom, read from the source; and what must start without TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {
    "arrays",
    "documents",
    "errors",
    "checksums",
    "csv_rows",
    "labels",
    "cluster",
    "config",
    "files",
    "weights",
    "weights_table",
    "quiet",
    "command_line",
    "option_errors",
    "help_text",
    "progress",
    "processes",
    "folders",
    "program",
    "provenance",
    "wording",
    "modalities",
    "run_info",
    "streams",
    "terminal",
    "consoles",
    "kinds",
    "locks",
    "pictures",
    "trust",
    "interrupts",
    "remote",
    "remote_folders",
}
BELOW_TRAINING = BASE | {"schema", "data", "models", "features", "evaluation", "runs"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "schema": BASE,
    "evaluation": BASE,
    "faces": BASE | {"schema"},
    "data": BASE | {"schema", "faces"},
    "models": BASE | {"schema"},
    "features": BASE | {"schema", "data", "models"},
    "runs": BASE | {"schema", "data", "models", "evaluation"},
    "training": BELOW_TRAINING,
    "interpret": BELOW_TRAINING | {"training"},
    "serving": BELOW_TRAINING | {"training", "faces", "interpret"},
    "page": BELOW_TRAINING | {"training", "faces", "interpret", "serving"},
    "cli": BELOW_TRAINING | {"training", "faces", "interpret", "serving", "page"},
    "__main__": BASE | {"cli"},
    "api": BELOW_TRAINING | {"training", "faces", "interpret", "serving", "cli"},
}
OURS = ("emotion_tf.", "tuning.")
HEAVY = {"tensorflow", "tensorflow_text", "tensorflow_hub", "keras", "keras_tuner"}
NO_TENSORFLOW = BASE - {"quiet"} | {"faces", "evaluation"}


def imports(source: str) -> list[tuple[str, int]]:
    """Full names of all that a source imports, wherever in it, with their lines.

    Of what only type checkers read, modules of ours count: who names another's class depends on it.
    """
    found = []
    for_types: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for_types.update(inner for statement in node.body for inner in ast.walk(statement))
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [f"{module}.{alias.name}" for alias in node.names]
        found += [(name, node.lineno) for name in names if node not in for_types or name.startswith(OURS)]
    return found


def faults(name: str, source: str) -> list[str]:
    """What breaks the rule in the source of the module `name`, such as `emotion_tf.data.records` or `main`."""
    package, _, rest = name.partition(".")
    part = rest.split(".")[0]
    broken = []
    for target, line in imports(source):
        root, _, inner = target.partition(".")
        allowed = True
        if (
            not root or root == "main" or (package == "emotion_tf" and root in ("tuning", "benchmarks", "tests"))
        ):  # relative, or the command line
            allowed = False
        elif package == "emotion_tf" and root == "emotion_tf" and part:
            allowed = inner.split(".")[0] in MAY_IMPORT[part] | {part, "__version__"}
        elif package == "tuning" and root == "emotion_tf":
            allowed = inner.split(".")[0] != "cli"  # what the two command lines share lies below both
        elif root in HEAVY and part in NO_TENSORFLOW:
            allowed = False
        if not allowed:
            broken.append(f"{name}, line {line}: imports {target}")
    return broken


def sources() -> dict[str, str]:
    paths = [*(ROOT / "emotion_tf").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")]
    named = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}
    return {name: path.read_text(encoding="utf-8") for name, path in named.items()}


def test_every_module_keeps_to_the_rule():
    found = sources()
    assert {name.split(".")[1] for name in found if name.startswith("emotion_tf.")} <= set(MAY_IMPORT)
    assert len(found) > 25
    assert [fault for name, source in found.items() for fault in faults(name, source)] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("emotion_tf.data.records", "from emotion_tf.models import fusion"),
        ("emotion_tf.data.records", "def f():\n    from emotion_tf.models.fusion import fuse"),
        ("emotion_tf.models.fusion", "import emotion_tf.data.images"),
        ("emotion_tf.models.fusion", "from emotion_tf import data"),
        ("emotion_tf.schema", "from emotion_tf.data import records"),
        ("emotion_tf.config", "from emotion_tf import schema"),
        ("emotion_tf.command_line", "import tensorflow as tf"),
        ("emotion_tf.weights", "def f():\n    import keras.ops"),
        ("emotion_tf.evaluation.metrics", "from tensorflow import nn"),
        ("emotion_tf.evaluation.metrics", "from emotion_tf.schema import Feature"),
        ("emotion_tf.runs.run", "if TYPE_CHECKING:\n    from emotion_tf.training.setup import Setup"),
        ("emotion_tf.runs.export", "from emotion_tf.serving.predict import Predictor"),
        ("emotion_tf.training.loop", "from emotion_tf.serving.predict import Predictor"),
        ("emotion_tf.training.loop", "from emotion_tf.interpret import saliency"),
        ("emotion_tf.serving.export", "from tuning.search import search"),
        ("emotion_tf.serving.export", "import main"),
        ("tuning.search", "from main import dispatch"),
        ("tuning.verb", "from emotion_tf.cli.prepare import load_tokenizer"),
        ("emotion_tf.data.images", "from . import manifest"),
        ("emotion_tf.data.images", "if True:\n    from emotion_tf.training import loop"),
    ],
)
def test_a_planted_violation_is_found(name, source):
    assert len(faults(name, source)) == 1
    assert faults(name, "import numpy\nfrom emotion_tf.errors import UserError\n" + source)[0].startswith(
        f"{name}, line"
    )


def test_what_is_allowed_is_not_found():
    assert faults("emotion_tf.training.loop", "from emotion_tf.data import records\nimport tensorflow as tf") == []
    assert faults("emotion_tf.data.images", "from emotion_tf.data.images import decode_faces\nimport cv2") == []
    assert faults("tuning.search", "from emotion_tf.serving.export import export") == []
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorflow as tf"
    assert faults("emotion_tf.labels", lazy) == []


@pytest.mark.parametrize("text", ["_nodes_by_depth", "_inbound_nodes", "get_layer("])
def test_no_module_walks_the_graph_of_keras_or_looks_layers_up_by_name(text):
    """A model, a tower and their parts have what others need of them as attributes and outputs."""
    assert [name for name, source in sources().items() if name.startswith("emotion_tf") and text in source] == []


def test_handles_of_pretrained_networks_are_resolved_in_one_module():
    users = {name for name, source in sources().items() if "resolve_encoder(" in source}
    assert users == {"emotion_tf.models.hub_handles", "emotion_tf.models.pretrained"}  # its definition, and its caller


def test_the_command_line_starts_without_tensorflow():
    """In one process, whose modules are looked at after each import."""
    names = [
        "emotion_tf",
        "emotion_tf.cli",
        "emotion_tf.weights",
        "emotion_tf.folders",
        "main",
        "emotion_tf.evaluation.report",
        "emotion_tf.evaluation.model_card",
    ]
    code = "\n".join(
        ["import sys", *(f"import {n}; print({n!r}, *sorted({HEAVY!r} & set(sys.modules)))" for n in names[:2])]
        + ["assert 'pydantic' not in sys.modules"]  # a third of the time that `--help` takes
        + [f"import {n}; print({n!r}, *sorted({HEAVY!r} & set(sys.modules)))" for n in names[2:]]
        + ["assert not {'matplotlib', 'scipy.stats', 'sklearn'} & set(sys.modules)"]  # a second of each prediction
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == names
    assert done.stderr == ""
