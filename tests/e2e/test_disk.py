"""A disk that fills up: one line, nothing half written, and all is well once there is space again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.command import Home
from tests.fixtures.data import digits_npz

MB = 2**20


class Disk:
    """A small file system of its own.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def leave(self, size: int) -> None:
        """Fill it up but for some bytes."""
        self.free()
        found = os.statvfs(self.path)
        # Others may write at the same time: then it is full a little earlier.
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            file.write(bytes(found.f_bavail * found.f_frsize - size))

    def free(self) -> None:
        """Take the filling away."""
        self._filler.unlink(missing_ok=True)

    def used(self, folder: Path) -> int:
        """Return the bytes of the files of a folder."""
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"left out: a full disk, as this machine lets nobody mount a small one ({mounted.stderr.strip()})")
    yield Disk(folder)
    subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def digits(tmp_path: Path) -> list[object]:
    return [digits_npz(tmp_path / "digits.npz", 200), "--target", "label", "--set", "train.epochs=1"]


def refused_for_space(home: Home, *arguments: object) -> None:
    message = home.refused(*arguments)
    assert "no space left" in message
    assert "Free some space" in message


def test_data_that_does_not_fit_is_no_dataset(disk: Disk, tmp_path: Path) -> None:
    file = tmp_path / "large.npz"
    dice = np.random.default_rng(0)
    np.savez(file, values=dice.normal(size=(20_000, 20)), label=dice.integers(0, 2, 20_000))
    home = Home(disk.path / "home")
    assert home.registered() == ([], [])
    used = disk.used(home.path)
    disk.leave(MB)
    refused_for_space(home, "data", "add", "large", file)
    assert disk.used(home.path) < used + MB // 4  # nothing of it is left
    disk.free()
    assert home.registered() == ([], [])
    home.ok("data", "add", "large", file)
    assert home.registered() == ([], ["large:1"])


@pytest.mark.parametrize("left", [20_000, 250_000, 900_000])
def test_a_training_that_runs_out_of_space_makes_no_model(disk: Disk, digits: list[object], left: int) -> None:
    home = Home(disk.path / "home")
    assert home.registered() == ([], [])
    disk.leave(left)
    refused_for_space(home, "train", *digits)
    disk.free()
    assert home.registered()[0] == []
    runs = home.ok("runs", "ls", "--json").json
    assert [run["status"] for run in runs] in ([], ["failed"])
    if left > MB // 2:  # so much is enough to begin
        home.ok("runs", "resume", runs[0]["id"])
        assert home.registered() == (["digits:1"], ["digits:1"])


def test_a_service_outlives_a_disk_that_is_full_for_a_while(disk: Disk, digits: list[object]) -> None:
    home = Home(disk.path / "home", {"YUNMO_WORKERS": "1"})
    with home.up() as service:
        disk.leave(20_000)
        refused_for_space(home, "train", *digits)
        assert service.curl("/healthz")["status"] == "ok"
        disk.free()
        assert service.curl("/api/v1/runs") == []
        with home.started("train", *digits, "--set", "train.epochs=40", "--json") as train:
            train.until_epoch(2)
            disk.leave(0)
            time.sleep(5)
            disk.free()
            answer = train.end()
        # Whatever could not be written just then: the run has failed for that reason, or has gone on.
        assert answer.status == 0 or "no space left" in answer.err
        (run,) = service.curl("/api/v1/runs")
        if run["status"] == "failed":
            home.ok("runs", "resume", run["id"])
        assert service.registered() == (["digits:1"], ["digits:1"])
        assert service.stop() == 0
