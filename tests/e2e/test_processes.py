"""What the processes of the service hold in memory: torch is where training is, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.command import CHILD, CONTROL, RUNNER, WORKER, Home
from tests.fixtures.bundles import make_bundle
from tests.fixtures.data import digits_npz

from yunmo.bundle.archive import export


def mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_only_the_child_of_a_run_has_torch_mapped(home: Home, tmp_path: Path) -> None:
    data = digits_npz(tmp_path / "digits.npz", 300)
    with home.up() as service:
        home.ok("models", "ls")  # the workspace has its keys from here on
        make_bundle(tmp_path / "served", name="served", private_key=home.path / "signing.key")
        export(tmp_path / "served", tmp_path / "served.zip")
        home.ok("models", "import", tmp_path / "served.zip")
        home.ok("deploy", "served:1")
        with home.started("train", data, "--target", "label", "--set", "train.epochs=30", "--json") as train:
            train.until_epoch(1)
            assert "libtorch" in mapped(service.process.one(CHILD).pid)
            found = {module: service.process.processes(module) for module in (WORKER, CONTROL, RUNNER)}
            assert all(found.values())
            for module, processes in found.items():
                for process in processes:
                    assert "torch" not in mapped(process.pid), module
                    if module == WORKER:
                        assert "onnxruntime" in mapped(process.pid)  # the model is there, without torch
            for each in train.processes():
                assert "torch" not in mapped(each.pid)
            assert "torch" not in mapped(train.pid)
        assert service.stop() == 0
