"""The release of TensorFlow Serving that exports are made for. Its number is decided here; tests compare the others."""

RELEASE = "2.18.0"
"""`server_ops.txt` lists the ops that this release can run."""
IMAGE = f"tensorflow/serving:{RELEASE}"
