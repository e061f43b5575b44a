"""Does a Ray cluster listen at an address? Ray itself tries for minutes."""

from __future__ import annotations

import os
import socket

from lucency.config_faults import shown
from lucency.errors import ConfigError

TIMEOUT_S = 5.0
# The head speaks gRPC, so HTTP/2: each side begins with its settings, frame type 4 (RFC 9113, 3.4).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


def require_server(address: str) -> None:
    """Raise ConfigError unless a gRPC server answers at "HOST:PORT" within seconds."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--ray must be HOST:PORT, 'auto' or 'local', got {shown(address, 100)!r}; the head of "
            "a cluster says its address when it starts."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as connection:
            answers = _is_encrypted() or _speaks_http2(connection)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"A Ray cluster was expected at {shown(address, 100)}, but nothing answers "
            f"({shown(str(error), 100)}); start it, or correct --ray."
        ) from error
    if not answers:
        raise ConfigError(
            f"A Ray cluster was expected at {shown(address, 100)}, but something else answers; "
            "give the port of its head, 6379 unless it was set, and not that of its dashboard."
        )


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(_HELLO)
    try:
        frame = connection.makefile("rb").read(9)
    except OSError:
        return False
    return len(frame) == 9 and frame[3] == _SETTINGS


def _is_encrypted() -> bool:
    """Whether Ray was told to use TLS, under which nothing can be said in plain."""
    return os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")
