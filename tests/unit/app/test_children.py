from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from yunmo.app.children import Child

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_child_that_dies_is_started_again() -> None:
    async def main() -> None:
        gone: list[tuple[int, int]] = []
        child = Child("x", [sys.executable, "-c", SLEEP], gone=lambda pid, status: gone.append((pid, status)))
        child.start()
        await until(lambda: child.pid is not None)
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first))
        assert gone == [(first, -signal.SIGKILL)]
        assert child.deaths == 1
        await child.stop(5)
        assert child.pid is None
        assert child.deaths == 1

    asyncio.run(main())


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    starts = tmp_path / "starts"

    async def main() -> None:
        child = Child("x", ["/bin/sh", "-c", f"echo >> {starts}; exit 1"])
        child.start()
        await asyncio.sleep(1.5)
        await child.stop(5)
        assert 2 <= len(starts.read_text()) <= 5  # at 0, 0.2, 0.6 and 1.4 seconds

    asyncio.run(main())


def test_a_child_that_does_not_end_is_killed(capfd: object) -> None:  # noqa: ARG001 (takes the child's output)
    async def main() -> None:
        child = Child("x", [sys.executable, "-c", STUBBORN])
        child.start()
        await until(lambda: child.pid is not None)
        await asyncio.sleep(0.5)
        await child.stop(0.2)
        assert child.pid is None

    asyncio.run(main())
