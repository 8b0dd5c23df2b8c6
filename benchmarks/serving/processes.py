"""What a tree of processes takes: memory and processor time, from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 30.0


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(path.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def pss_megabytes(pids: Iterable[int]) -> float:
    """Return the proportional set size of processes together: shared pages count once among those that share them."""
    kilobytes = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kilobytes += int(text.split("\nPss:")[1].split()[0])
    return kilobytes / 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have had together."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything below it: SIGTERM, and SIGKILL for what is left."""
    below = tree(process.pid)[1:]
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    end = time.monotonic() + 3
    left = below
    while left and time.monotonic() < end:
        left = [pid for pid in left if _alive(pid)]
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
