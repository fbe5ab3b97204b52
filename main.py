"""The command line in a clone: `python main.py VERB`."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imports are done: Ctrl-C ends them without a traceback

import sys

from emotion_tf.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
