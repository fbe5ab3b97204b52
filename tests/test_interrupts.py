"""Ctrl-C during imports ends the process; a handler of somebody else stays."""

import signal
import threading

import pytest

from emotion_tf import interrupts


@pytest.fixture(autouse=True)
def restored():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("before", "inside"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN), (signal.SIG_DFL, signal.SIG_DFL)],
)
def test_only_the_default_handler_is_replaced(before, inside):
    signal.signal(signal.SIGINT, before)
    with interrupts.end_on_interrupt():
        assert signal.getsignal(signal.SIGINT) == inside
    assert signal.getsignal(signal.SIGINT) == before


def test_another_thread_changes_no_handler():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    def look():
        with interrupts.end_on_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
