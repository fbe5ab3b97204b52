"""The servers of a tf.data service, for `train --data.service`: TensorFlow's wheel has no command for them.

python -m emotion_tf.data.serve --port 5050                  # the dispatcher
python -m emotion_tf.data.serve --dispatcher HOST:5050       # a worker, on each machine that helps
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sys
import threading
from typing import Annotated, Any

from emotion_tf.command_line import parse
from emotion_tf.config.rules import Range, check_fields, value
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say


@dataclasses.dataclass(frozen=True)
class ServerArguments:
    """Start the dispatcher of a tf.data service, or a worker of one, for `train --data.service`."""

    port: Annotated[int, Range(0, 2**16 - 1)] = 0
    """Port to listen at; 0: a free one."""
    dispatcher: Annotated[str, value("HOST:PORT")] = ""
    """Address of the dispatcher, for a worker. Empty: this is the dispatcher."""
    host: str = ""
    """Name of this machine for those that train; empty: its host name."""

    def __post_init__(self) -> None:
        """Raises UserError for a number outside its range."""
        check_fields(self)


def main() -> int:
    """Starts a server and serves until it is ended; returns the exit code."""
    try:
        arguments = parse(ServerArguments, sys.argv[1:], "python -m emotion_tf.data.serve")
        _check_port(arguments.port)
        start_tensorflow()  # with the operations of tensorflow_text, which are in the graphs
        return _serve(arguments)
    except UserError as error:
        say(f"error: {error}", file=sys.stderr)
        return 2


def _check_port(port: int) -> None:
    """Raises UserError if another process listens at a port, which gRPC would share with it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(f"Cannot listen at port {port}: {error.strerror}. Choose another --port.") from None


def _serve(arguments: ServerArguments) -> int:
    import tensorflow as tf

    from emotion_tf.data.service import check_service

    service, name = tf.data.experimental.service, arguments.host or socket.gethostname()
    try:
        if arguments.dispatcher:
            check_service(arguments.dispatcher, "--dispatcher", scheme="")
            server: Any = service.WorkerServer(
                service.WorkerConfig(arguments.dispatcher, f"{name}:%port%", port=arguments.port)
            )
        else:
            server = service.DispatchServer(service.DispatcherConfig(port=arguments.port))
    except tf.errors.OpError as error:
        raise UserError(f"Cannot listen at port {arguments.port}: {error.message}") from None
    if arguments.dispatcher:
        say(f"Worker of {arguments.dispatcher} on {name}", flush=True)
    else:
        say(f"Dispatcher: {server.target.replace('localhost', name)}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()  # `join` of a server is deaf to Ctrl-C
    return 0


if __name__ == "__main__":
    sys.exit(main())
