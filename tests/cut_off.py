"""Runs a command in a network namespace that has loopback and nothing else."""

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import pytest


@functools.cache
def _unshare() -> tuple[str, ...] | None:
    """How this machine lets this user make such a namespace: as root, or through one for users too."""
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
    """Runs a command with the network cut, or skips the test where that is not allowed."""
    prefix = _unshare()
    if prefix is None:
        pytest.skip("this machine lets no network namespace be made")
    return subprocess.run(
        [*prefix, *command], capture_output=True, text=True, env=dict(environment), timeout=timeout_s
    )
