from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from yunmo.app.process import ChildArguments, child_command
from yunmo.core.settings import Settings

CHILD = """
import sys, time
from yunmo.app.process import child_arguments
print(repr(child_arguments()), flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
from yunmo.app.process import ChildArguments, child_command
from yunmo.core.settings import Settings
from pathlib import Path
command = child_command("x", ChildArguments(Path("/h"), Settings(), os.getpid(), Path("/s"), "::1", 0))
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *command[3:]])
print(child.pid, flush=True)
child.wait()
"""


def arguments(parent: int) -> ChildArguments:
    return ChildArguments(Path("/a b"), Settings(port=0, workers=2), parent, Path("/s"), "127.0.0.1", 80)


def test_a_child_reads_what_it_was_given() -> None:
    command = child_command("module", arguments(os.getpid()))
    child = subprocess.Popen([sys.executable, "-c", CHILD, *command[3:]], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline().strip() == repr(arguments(os.getpid()))
        child.kill()
        child.wait()


def test_a_child_ends_at_once_if_its_parent_is_already_gone() -> None:
    command = child_command("module", arguments(1))
    assert subprocess.run([sys.executable, "-c", CHILD, *command[3:]], check=False, timeout=20).returncode == 0


def test_a_child_dies_with_its_parent_even_by_kill_9() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert "ChildArguments" in parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 10
        while _runs(child) and time.monotonic() < end:
            time.sleep(0.02)
        assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
