"""Scripts that each measure one thing and print a table."""

import argparse
import sys
from collections.abc import Callable

from emotion_tf.errors import UserError


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser without arguments whose help shows the docstring of a benchmark as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_benchmark(main: Callable[[], None]) -> None:
    """Runs a benchmark. An error of the user is one line and exit code 2, as on the program's command line."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
