"""Linux Landlock: this process and those that it starts can use only a few folders.

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
# Execute a file, read a file, list a folder.
_READ = 1 << 0 | 1 << 2 | 1 << 3
# The rights that a file has; the others are a folder's.
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14


# Capabilities of root with which it reads other processes' memory and environment, whatever Landlock says:
# CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON.
_READ_PROCESSES = sum(1 << number for number in (19, 21, 38))
_CAPABILITIES_VERSION = 0x20080522


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def restrict_process_files(writable: Sequence[Path], readable: Sequence[Path] | None = None) -> bool:
    """Restricts this thread, and the processes that it starts from now on, to some folders and files.

    Args:
        writable: What may be written and read; all of it exists.
        readable: What else may be read and executed; paths that do not exist are passed over. None allows
            everything that this user may read.

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
    write = _WRITE | sum(right for since, right in _WRITE_SINCE.items() if abi >= since)
    read = 0 if readable is None else _READ
    attributes = _RulesetAttributes(write | read)
    ruleset = _checked(
        libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    )
    try:
        rules = [(path, write | read) for path in writable]
        rules += [(path, read) for path in readable or () if path.exists()]
        for path, rights in rules:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathBeneath(rights if path.is_dir() else rights & _OF_FILES, parent)
                _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
            finally:
                os.close(parent)
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _drop_capabilities(libc)
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Gives up what lets root read other processes; without new privileges no child gets it back."""
    header = _CapabilityHeader(_CAPABILITIES_VERSION, 0)
    sets = (_CapabilitySets * 2)()  # of capabilities 0 to 31, and of those from 32
    _checked(libc.capget(ctypes.byref(header), sets))
    for index, each in enumerate(sets):
        kept = ~(_READ_PROCESSES >> (32 * index)) & 0xFFFFFFFF
        each.effective &= kept
        each.permitted &= kept
        each.inheritable &= kept
    _checked(libc.capset(ctypes.byref(header), sets))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
