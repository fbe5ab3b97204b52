"""Output to pipes, devices, links and standard output, which stay what they are."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emotion_tf import cli, files, streams
from emotion_tf.cli.verbs import Verb
from emotion_tf.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def device(path: Path, minor: int) -> Path:
    """Makes a memory device: 3 is /dev/null, 7 is /dev/full."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError:
        pytest.skip("this machine does not let a test make a device")
    return path


def test_a_full_device_stays_and_the_error_is_one_line(tmp_path):
    full = device(tmp_path / "full", 7)
    with pytest.raises(UserError, match=r"Cannot write .*full: No space left on device\.$"):
        files.write_text(full, "text", follow=True)
    assert stat.S_ISCHR(full.stat().st_mode) and os.listdir(tmp_path) == ["full"]


def test_a_device_is_written(tmp_path):
    null = device(tmp_path / "null", 3)
    files.write_text(null, "text", follow=True)
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_pipe_is_written(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "text", follow=True)
    reader.join(10)
    assert received == ["text"] and stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("content", ["before", None])
def test_the_target_of_a_link_is_replaced(content, tmp_path):
    (tmp_path / "target").mkdir()
    target, link = tmp_path / "target" / "a.txt", tmp_path / "link.txt"
    if content:
        target.write_text(content)
    link.symlink_to(target)
    files.write_text(link, "after", follow=True)
    assert link.is_symlink() and target.read_text() == "after" and os.listdir(target.parent) == ["a.txt"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "device", "pipe"])
def test_a_link_or_stream_in_a_folder_is_replaced(kind, tmp_path):
    """It may come with somebody else's folder. Only a path that the user typed is followed."""
    (tmp_path / "target").write_text("private")
    path = tmp_path / "metrics.json"
    targets = {"link": tmp_path / "target", "dangling link": tmp_path / "new", "device": Path("/dev/null")}
    path.symlink_to(targets[kind]) if kind in targets else os.mkfifo(path)
    files.write_text(path, "after")
    assert not path.is_symlink() and path.read_text() == "after"
    assert sorted(os.listdir(tmp_path)) == ["metrics.json", "target"] and (tmp_path / "target").read_text() == "private"


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("private")
    with files.new_file(tmp_path / "a.txt") as temporary:
        temporary.touch()
    temporary.symlink_to("target")
    files.write_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "target").read_text() == "private" and (tmp_path / "a.txt").read_text() == "after"


def test_an_open_descriptor_is_written(tmp_path, capfd):
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"first\n")
        file.flush()
        files.write_text(Path(f"/dev/fd/{file.fileno()}"), "second\n", follow=True)
    assert (tmp_path / "a.txt").read_text() == "first\nsecond\n"
    for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
        files.write_text(Path(name), "text", follow=True)
        assert capfd.readouterr().out == "text"


def test_a_table_on_standard_output(untrained_text, tmp_path, command):
    (tmp_path / "t.csv").write_text("utterance\nHello\n")
    code, output = command("predict-table", untrained_text, tmp_path / "t.csv", "--out", "-")
    assert code == 0 and output.err == "1 prediction: -\n"
    assert output.out.startswith("utterance,predicted,p_") and output.out.count("\n") == 2


@pytest.fixture
def unread():
    """A text stream to a pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


def test_a_lossy_stream_goes_on_without_its_reader(unread, monkeypatch):
    monkeypatch.setattr(sys, "stdout", unread)
    with streams.lossy("stdout") as output:
        for _ in range(3):
            print("epoch", flush=True)
        assert output.error.errno == errno.EPIPE
    assert sys.stdout is unread
    print("after", flush=True)  # to nowhere: the interpreter flushes it at its end


@pytest.mark.parametrize(
    ("path", "is_report", "message"),
    [
        ("pipe", False, None),
        ("pipe", True, "Broken pipe"),
        ("/dev/full", False, "No space left on device. All else is done."),
        ("/dev/full", True, "No space left on device"),
    ],
)
def test_only_a_report_needs_its_reader(path, is_report, message, unread, monkeypatch):
    """A training goes on; that its output was lost on a full disk is said at its end."""
    stream, steps = unread if path == "pipe" else open(path, "w"), []  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)
    verb = Verb("x", "", "", "", is_report=is_report)
    ends = contextlib.nullcontext() if message is None else pytest.raises((OSError, UserError), match=message)
    with ends, cli._output(verb):
        print("first", flush=True)
        steps.append("second")
    assert bool(steps) == (not is_report)
    streams.discard(stream)


CLOSED = (2, "error: Cannot write to standard output: Bad file descriptor.\n")
COMMANDS = {
    "": {">&-": CLOSED},
    "prepare": {">&-": CLOSED},
    "runs --help": {">&-": CLOSED},
    "runs": {">&-": CLOSED, "2>&-": (0, "")},
    "options": {
        ">/dev/full": (2, "error: Cannot write: No space left on device. Free some space or write to another place.\n"),
        "| true": (141, ""),  # 128 + SIGPIPE, as for other tools
    },
}


@pytest.mark.parametrize(
    ("verb", "redirection", "code", "error"),
    [(verb, redirection, *end) for verb, cases in COMMANDS.items() for redirection, end in cases.items()],
)
def test_a_report_without_its_streams(verb, redirection, code, error):
    program = f"{sys.executable} main.py {verb} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, error)


@pytest.mark.parametrize(
    ("path", "redirection", "error"),
    [("-", ">&-", "error: Cannot write -: Bad file descriptor.\n"), ("/dev/stderr", "2>&-", "")],
)
def test_a_result_that_goes_to_a_closed_stream_is_an_error(path, redirection, error):
    """The descriptor itself is open then, and leads to nowhere."""
    code = f"""if True:
        import pathlib, sys
        from emotion_tf import cli, files
        cli.dispatch = lambda args: files.write_text(pathlib.Path({path!r}), "text", follow=True)
        sys.exit(cli.main())
    """
    program = ["bash", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, error)


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-"])
def test_processes_of_a_program_with_a_closed_stream_have_all_streams(redirection):
    """The workers of `tune >&-` could not start."""
    code = """if True:
        import subprocess, sys
        from emotion_tf import streams
        streams.open_standard()
        child = "import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))"
        sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
    """
    program = ["bash", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code]
    assert subprocess.run(program, cwd=ROOT).returncode == 0


def standard_error():
    """Returns what descriptor 2 leads to."""
    status = os.fstat(2)
    return status.st_dev, status.st_ino


@pytest.mark.parametrize("name", ["dup", "open", "dup2", "close"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [0, 1])
def test_an_interrupted_silence_ends(name, after, call, capfd, monkeypatch):
    """Ctrl-C before or after each step, on the way in or out: its message must be seen."""
    before, function, calls = standard_error(), getattr(os, name), []

    def interrupt(*args):
        calls.append(args)
        if len(calls) != call + 1:
            return function(*args)
        result = function(*args) if after else None
        raise KeyboardInterrupt(result)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, interrupt)
        with contextlib.suppress(KeyboardInterrupt), streams.silent_libraries():
            assert standard_error() != before
    assert standard_error() == before
    with streams.silent_libraries():
        os.write(2, b"libpng warning")
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


def test_silence_without_standard_error(monkeypatch):
    """As in the process of a daemon."""

    def fail(descriptor):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    before = standard_error()
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", fail)
        with streams.silent_libraries():
            pass
    assert standard_error() == before


def test_a_lossy_stream_is_copied():
    """Without end, its look-up of the missing stream asked for itself."""
    lossy = streams.Lossy(sys.stdout)
    assert vars(copy.copy(lossy)) == vars(lossy) and lossy.encoding == sys.stdout.encoding


INTERRUPTED = """
import os, runpy, signal, sys
interrupted, start = sys.argv[1:]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.modules.pop(interrupted, None)
sys.argv = ["main.py", "options"]
if start == "main.py":
    runpy.run_path(start, run_name="__main__")
else:
    from emotion_tf.__main__ import main
    main()
print("not interrupted")
"""


@pytest.mark.parametrize(
    ("module", "start"),
    [
        ("signal", "main.py"),
        ("emotion_tf", "main.py"),
        ("emotion_tf.cli", "main.py"),
        ("emotion_tf.cli", "script"),
        ("tyro", "script"),
    ],
)
def test_an_interruption_during_the_imports_prints_no_traceback(module, start):
    command = [sys.executable, "-c", INTERRUPTED, module, start]
    program = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    assert (program.returncode, program.stdout, program.stderr) == (-signal.SIGINT, "", "")


def test_an_argument_that_is_not_utf8_is_refused(fault):
    assert "Invalid argument '\\udcff.png'. Expected UTF-8." in fault("predict", "run", "--face", "\udcff.png")
