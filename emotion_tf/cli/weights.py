"""`weights list` and `weights fetch`: pretrained networks by name."""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.conf import Positional

from emotion_tf.consoles import table_console
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say


def weights_list() -> None:
    """List the pretrained networks that have a name."""
    from rich.table import Table

    from emotion_tf import weights

    rows = weights.describe()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    table_console(200).print(table)


def fetch(name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]) -> None:
    """Download pretrained weights, verify their hash, and store them in the cache.

    Args:
        name: Name in `weights list`.
    """
    from emotion_tf import weights

    weights.lookup(name)
    start_tensorflow()
    from emotion_tf.models.pretrained import fetch_network

    say(f"{name}: {fetch_network(name)}")
