"""What a service is asked to find out whether it still answers; that its process runs does not say so.

The system takes connections for a process that is stopped, so each question waits for a reply.
"""

import contextlib
import math
import socket
import struct
import urllib.error
import urllib.request
from pathlib import Path

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL says to everybody, in one byte, whether it encrypts; it asks for no user first.
https://www.postgresql.org/docs/current/protocol-message-formats.html"""


def code_server_answers(address: Path, timeout_s: float) -> bool:
    """Returns whether a Dagster code server says which one it is."""
    # Dagster's health check is of the server alone, and its command starts a process; its version is pinned.
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._grpc.client import DagsterGrpcClient

    try:
        return bool(DagsterGrpcClient(socket=str(address)).get_server_id(timeout=math.ceil(timeout_s)))
    except DagsterUserCodeUnreachableError:
        return False


def web_server_answers(url: str, timeout_s: float) -> bool:
    """Returns whether a web server answers, be it with a refusal."""
    # A proxy of the environment has no business on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def postgres_answers(address: Path, timeout_s: float) -> bool:
    """Returns whether a PostgreSQL server answers on its Unix socket, be it that it takes no user now."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(address))
        client.sendall(_SSL_REQUEST)
        return bool(client.recv(1))
    return False


def port_answers(port: int, timeout_s: float) -> bool:
    """Returns whether what listens on a port of loopback hangs up when the caller has nothing to say."""
    with contextlib.suppress(OSError), socket.socket() as client:
        client.settimeout(timeout_s)
        client.connect(("127.0.0.1", port))
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            client.recv(1)
        return True
    return False
