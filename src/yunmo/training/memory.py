"""How much memory a process takes for what it does. No torch."""

from __future__ import annotations

from pathlib import Path

import psutil


class Memory:
    """What this process has resident, from now on.

    What it grows by counts: a fork begins without the pages of libraries that its parent has in memory, so that its
    whole would be too little.
    """

    def __init__(self) -> None:
        self._before = psutil.Process().memory_info().rss

    def grown(self) -> int:
        """Return the most bytes that were added at any time."""
        return max(0, _peak() - self._before)


def _peak() -> int:
    """Return the most bytes that this process ever had; ``getrusage`` would count those of its parent, too."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return psutil.Process().memory_info().rss
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
