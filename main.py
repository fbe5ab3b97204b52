"""The command line in a clone: `python main.py VERB`."""

import _signal  # the part of `signal` that is loaded already: the import of the rest can be interrupted, too

if __name__ == "__main__" and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until the imports are done: Ctrl-C ends them without a traceback

import sys

from emotion_tf.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
