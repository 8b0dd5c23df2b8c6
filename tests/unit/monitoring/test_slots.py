from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from yunmo.monitoring import slots
from yunmo.monitoring.families import BLOCKS, IN_FLIGHT, OF_VERSION, block_cells, place
from yunmo.monitoring.slots import Slot, SlotError, forget_slots, read_slots, shared_folder

PETS = ("default", "pets", "pets", "1")
GAUGE = place(OF_VERSION, IN_FLIGHT)

OWNER = """
import sys, time
from pathlib import Path
from yunmo.monitoring.slots import Slot
slot = Slot.take(Path(sys.argv[1]))
at = slot.block(0, ("default", "pets", "pets", "1"))
slot.cells[at] += float(sys.argv[2])
slot.cells[at + int(sys.argv[3])] = 9.0
print("ready", flush=True)
time.sleep(600)
"""


def owner(folder: Path, count: int) -> subprocess.Popen[str]:
    """Start a process that owns a slot and has counted so many."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), str(count), str(GAUGE)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def total(folder: Path, cell: int = 0) -> float:
    return sum(block.values[cell] for copy in read_slots(folder) for block in copy.blocks if block.labels == PETS)


def test_counts_of_a_killed_process_stay_and_its_gauges_go(tmp_path: Path) -> None:
    first, second = owner(tmp_path, 5), owner(tmp_path, 7)
    try:
        assert (total(tmp_path), total(tmp_path, GAUGE)) == (12.0, 18.0)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert (total(tmp_path), total(tmp_path, GAUGE)) == (12.0, 9.0)
        assert [copy.alive for copy in read_slots(tmp_path)] == [False, True]
        assert sum(copy.deaths for copy in read_slots(tmp_path)) == 1.0
        third = owner(tmp_path, 11)
        try:
            # It went on in the slot of the dead one.
            assert (total(tmp_path), total(tmp_path, GAUGE)) == (23.0, 18.0)
            copies = read_slots(tmp_path)
            assert [copy.pid for copy in copies] == [third.pid, second.pid]
            assert (sum(copy.starts for copy in copies), sum(copy.deaths for copy in copies)) == (3.0, 1.0)
        finally:
            third.kill()
            third.wait()
    finally:
        for each in (first, second):
            each.kill()
            each.wait()


def test_who_ends_as_told_did_not_die(tmp_path: Path) -> None:
    slot = Slot.take(tmp_path)
    at = slot.block(0, PETS)
    assert at is not None
    slot.cells[at] += 3.0
    slot.close()
    [copy] = read_slots(tmp_path)
    assert (copy.alive, copy.starts, copy.deaths, total(tmp_path)) == (False, 1.0, 0.0, 3.0)
    slot.cells[at] += 1.0  # of a request that still ended: no error
    again = Slot.take(tmp_path)
    assert again.block(0, PETS) == at
    assert total(tmp_path) == 4.0
    again.close()


def test_a_slot_of_another_version_of_the_program_is_not_read_and_begun_anew(tmp_path: Path) -> None:
    Slot.take(tmp_path).close()
    path = tmp_path / "0.slot"
    data = bytearray(path.read_bytes())
    data[:8] = b"another!"
    path.write_bytes(data)
    assert read_slots(tmp_path) == []
    slot = Slot.take(tmp_path)
    assert [copy.starts for copy in read_slots(tmp_path)] == [1.0]
    slot.close()


def test_who_died_while_naming_a_block_leaves_a_slot_that_can_be_read_and_taken(tmp_path: Path) -> None:
    slot = Slot.take(tmp_path)
    at, other = slot.block(0, PETS), slot.block(0, ("default", "cats", "cats", "1"))
    assert at is not None
    assert other is not None
    slot.cells[at] = 5.0
    slot.cells[4] += 1.0  # the generation, which is odd while a block is named
    slot.cells[other - 36 + 1] = 0.0  # the length of its labels
    slot.close()
    [copy] = read_slots(tmp_path)
    assert [block.labels for block in copy.blocks] == [PETS]
    again = Slot.take(tmp_path)
    again.block(0, ("default", "cats", "cats", "1"))
    assert {block.labels[1] for copy in read_slots(tmp_path) for block in copy.blocks} == {"pets", "cats"}
    assert total(tmp_path) == 5.0
    again.close()


def test_a_full_slot_says_no_and_old_blocks_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_BYTES", 2 * slots.STEP_BYTES)
    monkeypatch.setattr(slots, "TIDY_CELLS", slots.STEP_BYTES // 8)
    slot = Slot.private()
    size = (36 + block_cells(BLOCKS[0])) * 8
    room = (2 * slots.STEP_BYTES - 16 * 8) // size
    labels = [("default", "pets", "pets", str(number)) for number in range(room + 1)]
    places = [slot.block(0, each) for each in labels]
    assert None not in places[:room]
    assert places[room] is None
    assert places[3] is not None
    slot.cells[places[3]] = 8.0
    slot.retire(labels[3])
    assert slot.block(0, labels[room]) is None  # it is still on the page
    monkeypatch.setattr(slots, "KEEP_SECONDS", -1.0)
    assert slot.block(0, labels[room]) == places[3]
    values = {block.labels: block.values[0] for block in slot.copy().blocks}
    assert values[labels[room]] == 0.0
    assert labels[3] not in values


def test_labels_too_long_get_no_block() -> None:
    assert Slot.private().block(0, ("default", "x" * 300, "pets", "1")) is None


def test_no_memory_is_an_error_and_not_a_signal_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SlotError):
        Slot.take(tmp_path)


def test_the_folder_is_private_and_nobody_elses(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shm"
    home.mkdir()
    shared.mkdir()
    folder = shared_folder(home, parent=shared)
    assert folder.parent == shared
    assert folder.stat().st_mode & 0o777 == 0o700
    assert shared_folder(home, parent=shared) == folder
    folder.chmod(0o755)  # as one that somebody else had made beforehand
    assert shared_folder(home, parent=shared) == home / "run" / "metrics"
    assert shared_folder(home, parent=tmp_path / "absent") == home / "run" / "metrics"


def test_slots_of_workspaces_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    homes = [tmp_path / name for name in ("mine", "other", "gone")]
    for home in homes:
        home.mkdir()
        Slot.take(shared_folder(home, parent=shared)).close()
    homes[2].rmdir()
    forget_slots(homes[0], parent=shared)
    left = {(folder / "home").read_text() for folder in shared.iterdir()}
    assert left == {str(homes[1])}
