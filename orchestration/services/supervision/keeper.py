"""Starts the supervisor again when it dies: `python -m orchestration.services.supervision.keeper`.

It waits, and knows the standard library alone, so there is little that it can die of. Where it is killed
itself, the supervisor takes its place and starts another supervisor: see `supervisor.main`.
"""

import os
import signal
import subprocess
import sys
import time

COMMAND = (sys.executable, "-m", "orchestration.services.supervision.keeper")
"""The program and its arguments."""
_SUPERVISOR = (sys.executable, "-m", "orchestration.services.supervision.supervisor")
_LONGEST_WAIT_S = 60.0
"""A supervisor that lived for as long is started again at once; else the wait doubles, up to so long."""


def main() -> None:
    """Keeps a supervisor running until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    wait_s = 0.5
    while True:
        begun_s = time.monotonic()
        with subprocess.Popen(_SUPERVISOR) as supervisor:
            try:
                pid = 0
                while pid != supervisor.pid:  # services are its children too, where it was a supervisor once
                    pid, status = os.wait()
                supervisor.returncode = os.waitstatus_to_exitcode(status)
            finally:
                supervisor.terminate()
        lived_s = time.monotonic() - begun_s
        wait_s = 0.0 if lived_s > _LONGEST_WAIT_S else min(max(2 * wait_s, 1.0), _LONGEST_WAIT_S)
        said = f"the supervisor ended with {supervisor.returncode} after {lived_s:.0f} s"
        print(f"{said}: it is started again in {wait_s:g} s", file=sys.stderr, flush=True)
        time.sleep(wait_s)


if __name__ == "__main__":
    main()
