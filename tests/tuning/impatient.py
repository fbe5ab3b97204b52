"""The command line with a search that misses its workers after 8 s in place of 30, and its chief after 20: a script."""

import sys

from emotion_tf import cli, quiet

quiet.start_tensorflow()

from tuning import distributed, oracle, search  # noqa: E402

oracle.LOST_AFTER = distributed.LOST_AFTER = 8.0
search.HEARTBEAT, distributed.ANSWER_TIMEOUT = 1.0, 20
if __name__ == "__main__":
    sys.exit(cli.main())
