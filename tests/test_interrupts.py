"""Ctrl-C during imports ends the process, in a `__del__` it is not lost, and no other error hides it."""

import signal
import sys
import threading
import time

import pytest

from emotion_tf import interrupts
from emotion_tf.errors import UserError
from emotion_tf.processes import Spawn


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


def test_processes_of_a_pool_are_born_with_the_interruption_blocked():
    """Ctrl-C reaches them before they can ignore it: while they import."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    process = Spawn().Process(target=signal.raise_signal, args=(signal.SIGINT,))
    process.start()
    process.join()
    assert process.exitcode == 0 and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


class InterruptedDeletion:
    """Ctrl-C comes while it is deleted."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_in_a_finalizer_is_repeated(capfd):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), interrupts.repeat_lost():
        InterruptedDeletion()
        time.sleep(5)
    assert sys.unraisablehook is before and capfd.readouterr().err == ""


def test_other_errors_in_a_finalizer_go_to_the_former_hook(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with interrupts.repeat_lost():
        sys.unraisablehook(type("Unraisable", (), {"exc_type": ValueError}))
    assert [unraisable.exc_type for unraisable in seen] == [ValueError]


def interrupt():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def error_of_compiled_code():
    interrupt()
    raise SystemError("returned a result with an exception set")


def error_of_pybind11():
    interrupt()
    raise RuntimeError(
        "pybind11::error_already_set: MISMATCH of original and normalized active exception types: ORIGINAL "
        "InvalidArgumentError REPLACED BY KeyboardInterrupt: <EMPTY MESSAGE>"
    )


def error_while_it_is_handled():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise ValueError("a graph that is not complete")


def error_that_names_its_cause():
    try:
        error_while_it_is_handled()
    except ValueError as error:
        raise RuntimeError from error


@pytest.mark.parametrize(
    "raise_error",
    [error_of_compiled_code, error_of_pybind11, error_while_it_is_handled, error_that_names_its_cause],
)
def test_an_error_that_an_interruption_has_become_is_one(raise_error):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), interrupts.remember_interruptions(), interrupts.recognize_interruption():
        raise_error()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("is_interrupted", "error"), [(False, SystemError), (True, ValueError), (True, UserError), (True, SystemExit)]
)
def test_a_defect_and_an_error_of_the_user_stay_what_they_are(is_interrupted, error):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupts.remember_interruptions():
        interrupt()
    # an earlier one is forgotten
    with pytest.raises(error), interrupts.remember_interruptions(), interrupts.recognize_interruption():
        if is_interrupted:
            interrupt()
        raise error


def test_an_import_that_is_interrupted_later_ends_the_process_too():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupts.remember_interruptions():
        with interrupts.end_on_interrupt():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        with pytest.raises(SystemError), interrupts.recognize_interruption():
            raise SystemError
        with pytest.raises(KeyboardInterrupt), interrupts.recognize_interruption():
            error_of_compiled_code()
