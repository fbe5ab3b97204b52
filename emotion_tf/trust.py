"""Which graphs, exports and data sets this user made, by SHA-256: one file each in the user's configuration.

A checksum that lies beside a file proves nothing: who changes the file also changes the checksum. These do not lie
beside it. `train` and `export` write them; `--trust` accepts anything else for one command, which records nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from emotion_tf.errors import UserError
from emotion_tf.terminal import say

VARIABLE = "EMOTION_TF_TRUST"
"""Environment variable that `--trust` sets, which child processes inherit."""


def folder() -> Path:
    """Returns the folder of checksums: in `$EMOTION_TF_CONFIG`, `$XDG_CONFIG_HOME/emotion_tf`, `~/.config/emotion_tf`.

    It is not in the cache, which people copy from machine to machine.
    """
    base = os.environ.get("EMOTION_TF_CONFIG")
    if base:
        return Path(base).expanduser() / "trusted"
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "emotion_tf" / "trusted"


def remember(sha256: str, origin: str) -> None:
    """Stores the checksum of a graph or an export that this user has made; `origin` says where, for a reader.

    With `--trust` nothing is stored: what was made may contain a graph of somebody else. A folder that cannot be
    written is no error: a warning says once what follows from it.
    """
    if not trusts_everything():
        _store(sha256, origin)


def remember_check(sha256: str, origin: str) -> None:
    """Stores the checksum of something that has passed a check, so that the check need not be repeated.

    A folder that cannot be written is no error, as for `remember`.
    """
    _store(sha256, origin)


def has_passed(sha256: str) -> bool:
    """Returns whether `remember_check` has stored a checksum. `--trust` does not matter: it skips no check."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        return os.path.isfile(_path(sha256))
    return False


@functools.cache
def _warn(error: str) -> None:
    say(
        f"warning: Cannot record what you make or check ({error}): opening it will need --trust, and each command "
        "checks the records of data again. EMOTION_TF_CONFIG sets another folder.",
        file=sys.stderr,
    )


def is_trusted(sha256: str) -> bool:
    """Returns whether this user has made what has this checksum, or trusts everything (see `everything`)."""
    return trusts_everything() or has_passed(sha256)


def trusts_everything() -> bool:
    """Returns whether `--trust` was given."""
    return os.environ.get(VARIABLE) == "1"


@contextlib.contextmanager
def everything(enabled: bool = True) -> Iterator[None]:
    """Trusts every graph while the block runs, in this process and in those that it starts; `enabled`: whether to."""
    before = os.environ.get(VARIABLE)
    if enabled:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def check(sha256: str, what: str, where: Path | str) -> None:
    """Raises UserError unless `is_trusted`; `what` names the thing, such as "encoder graph"."""
    if not is_trusted(sha256):
        place: Path | str = "the home folder, which is unknown"
        with contextlib.suppress(RuntimeError):
            place = folder()
        raise UserError(
            f"{where}: Its {what} was not made here by you, or its record in {place} (EMOTION_TF_CONFIG) is lost. "
            f"Received: SHA-256 {sha256[:12]}... If you trust its author, add --trust, or trust=True in Python."
        )


def _store(sha256: str, origin: str) -> None:
    try:
        _write(sha256, origin)
    except OSError as error:
        _warn(f"{error.strerror or error}: {folder()}")
    except RuntimeError as error:  # a user without a home
        _warn(" ".join(str(error).split()))


def _write(sha256: str, origin: str) -> None:
    path = _path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(f"{origin}\n", encoding="utf-8", errors="backslashreplace")


def _path(sha256: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"Invalid SHA-256: {sha256!r}")
    return folder() / sha256
