"""What graph_ops.txt holds: tests/test_parts.py compares it with the ops of exports and encoders."""

from pathlib import Path

from graph_ops import published_ops
from helpers import saved_ops

from emotion_tf.models.graph_safety import allowed_ops, nodes


def test_encoders_of_the_tests_keep_to_the_list(tiny_bert, tmp_path):
    assert saved_ops(Path(tiny_bert)) | published_ops(tmp_path) <= allowed_ops()
    assert len(allowed_ops()) < 250 and nodes


def test_no_op_of_the_list_reaches_out():
    """Names of ops with files, connections, Python, other graphs, printing."""
    words = {"File", "Dataset", "Py", "Summary", "Print", "Debug", "Rpc", "Send", "Recv", "Xla", "Reader", "Sql"}
    data = {"ConcatenateDataset", "DatasetToSingleElement", "IgnoreErrorsDataset", "MapDataset", "TakeDataset"}
    reaching = {op for op in allowed_ops() if any(word in op for word in words)}
    assert reaching == data | {"TensorDataset", "ShardedFilename"}
