"""The command line in a clone: `python main.py VERB`."""

import sys

from emotion_tf.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
