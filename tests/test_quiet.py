"""The import of TensorFlow; a fake package takes its place, since the real one takes seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TENSORFLOW = """
import gc, os, types
print("oneDNN", os.environ["TF_ENABLE_ONEDNN_OPTS"])
print("collects" if gc.isenabled() else "does not collect")
for name in ("sklearn", "matplotlib"):
    try:
        __import__(name)
        print(name)
    except ImportError:
        pass
config = types.SimpleNamespace(
    threading=types.SimpleNamespace(set_intra_op_parallelism_threads=print), list_logical_devices=lambda: None
)
"""


@pytest.mark.parametrize(
    ("before", "seen", "one_dnn"), [("import sys", [], None), ("import sklearn", ["sklearn"], None), ("", [], "0")]
)
def test_keras_does_not_import_packages_that_nothing_else_needs(tmp_path, before, seen, one_dnn):
    """And oneDNN is on, unless the user has said otherwise."""
    for name, source in {"tensorflow": TENSORFLOW, "tensorflow_text": "", "sklearn": "", "matplotlib": ""}.items():
        (tmp_path / f"{name}.py").write_text(source)
    program = (
        f"{before}\nfrom emotion_tf.quiet import start_tensorflow\nstart_tensorflow(3)\n"
        "import sklearn, matplotlib\nprint(sklearn.__name__, matplotlib.__name__)\n"
        "import gc\nprint(gc.isenabled(), gc.get_freeze_count() > 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment.pop("TF_ENABLE_ONEDNN_OPTS")
    environment |= {"TF_ENABLE_ONEDNN_OPTS": one_dnn} if one_dnn else {}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    expected = [f"oneDNN {one_dnn or 1}", "does not collect", *seen, "3", "sklearn matplotlib", "True True"]
    assert result.stdout.splitlines() == expected, result.stderr
