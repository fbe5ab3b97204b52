"""Scripts that measure and print their own table."""

import sys
from collections.abc import Callable

from emotion_tf.errors import UserError


def reporting(main: Callable[[], None]) -> None:
    """Runs a benchmark; bad input is one line and exit code 2, as on the command line of the program."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
