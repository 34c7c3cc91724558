"""The owner of a run: a process, with a name that neither a recycled process id nor a reboot can repeat."""

import os
import socket
import sys
from pathlib import Path


def current_owner() -> str:
    """Return ``host:pid:start`` of this process."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_start(pid)}"


def is_alive(owner: str) -> bool | None:
    """Return whether the owner is alive; None if that can't be known (another host, no owner)."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    start = owner.rpartition(":")[2]
    if not host or host != socket.gethostname() or not rest.isdigit():
        return None
    if sys.platform == "win32":  # os.kill(pid, 0) would send Ctrl-C there
        return None
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is alive, under another user
    return _start(int(rest)) == start


def _start(pid: int) -> str:
    """Return the start of a process in clock ticks since boot, and the boot; ``0`` where /proc does not say it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return "0"
    after_name = stat.rpartition(")")[2].split()  # the name may hold spaces and brackets
    if after_name[0] in "ZX":
        return "ended"
    return f"{after_name[19]}-{boot[:8]}"
