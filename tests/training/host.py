"""The command line as one of several hosts, which counts the records that it reads: a script.

    python host.py FOLDER VERB ...

The file FOLDER/INDEX-PROCESS has a line `EPOCH POSITION ...` for each read of training records. With KILL=INDEX:EPOCH,
the host of this number ends itself by SIGKILL in that epoch, counted from 0.
"""

import json
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from emotion_tf import cli
from emotion_tf.data.pipeline import EpochOrder
from emotion_tf.data.record_index import RecordIndex

FOLDER, INDEX = (
    Path(sys.argv.pop(1)),
    json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"],
)
epoch, read, shuffle = -1, RecordIndex.read, EpochOrder.shuffle


def counting_shuffle(order, positions):
    """Notes the epoch that begins."""
    global epoch
    epoch = order.epoch
    return shuffle(order, positions)


def counting_read(index, positions):
    """Notes the records, or ends the process."""
    if os.environ.get("KILL") == f"{INDEX}:{epoch}":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(FOLDER / f"{INDEX}-{os.getpid()}", "a") as file:
        print(epoch, *positions, file=file)
    return read(index, positions)


RecordIndex.read, EpochOrder.shuffle = counting_read, counting_shuffle
if __name__ == "__main__":
    sys.exit(cli.main())
