"""Servers on loopback for as long as a test needs them."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import TypeVar

EPHEMERAL = 32768  # from here on Linux gives ports to outgoing connections, as to those of tests beside this one
Server = TypeVar("Server", bound=BaseServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve in a thread. Ends within moments: by default a server looks only twice a second whether it shall."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_ports(count: int) -> list[int]:
    """For servers that must be told theirs."""
    found: list[int] = []
    with contextlib.ExitStack() as taken:
        while len(found) < count:
            probe = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.randrange(20000, EPHEMERAL)))
                found.append(probe.getsockname()[1])
    return found
