"""Runs a command without a network, in a network namespace with only loopback."""

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import pytest


@functools.cache
def _unshare() -> tuple[str, ...] | None:
    """Returns the command that makes such a namespace, as root or in a user namespace; None if none works."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return None
    for flags in (("--net",), ("--net", "--user", "--map-root-user")):
        command = ("unshare", *flags, "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return None


def cut_off(
    command: Sequence[str], environment: Mapping[str, str] = os.environ, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a network; skips the test if this machine does not allow it."""
    prefix = _unshare()
    if prefix is None:
        pytest.skip("this machine allows no network namespaces")
    return subprocess.run(
        [*prefix, *command], capture_output=True, text=True, env=dict(environment), timeout=timeout_s
    )
