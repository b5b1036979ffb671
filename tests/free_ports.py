"""Finds free ports on the loopback interface."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Returns different ports that were free a moment ago."""
    with contextlib.ExitStack() as open_probes:
        probes = [open_probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
