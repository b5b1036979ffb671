"""Linux Landlock: this process and those that it starts can write only in a few folders.

Needs no privilege and can not be undone. See https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38  # prctl's PR_SET_NO_NEW_PRIVS

# Every right that changes something: write a file (bit 1), remove a folder or file (4, 5), make any kind of
# entry (6 to 12), link across folders (13, since ABI 2), truncate (14, since ABI 3).
_WRITE = sum(1 << bit for bit in (1, *range(4, 13)))
_WRITE_SINCE = {2: 1 << 13, 3: 1 << 14}


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def restrict_process_writes(writable: Sequence[Path]) -> bool:
    """Restricts this thread, and the processes that it starts from now on, to writing below some folders.

    Args:
        writable: Folders and files that exist.

    Returns:
        False if the system has no Landlock (before Linux 5.13, or another system): nothing is restricted.

    Raises:
        OSError: The system has Landlock and refused; it is unknown what is restricted.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if abi < 1:
        return False
    rights = _WRITE | sum(right for since, right in _WRITE_SINCE.items() if abi >= since)
    attributes = _RulesetAttributes(rights)
    ruleset = _checked(
        libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    )
    try:
        for path in writable:
            # A file takes no right that only folders have.
            allowed = rights if path.is_dir() else rights & (1 << 1 | 1 << 14)
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathBeneath(allowed, parent)
                _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
            finally:
                os.close(parent)
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
