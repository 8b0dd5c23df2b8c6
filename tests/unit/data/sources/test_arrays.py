from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from yunmo.core.errors import DataError
from yunmo.data.sources.open import open_source

X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_array_is_a_field(tmp_path: Path, save: object) -> None:
    path = tmp_path / "a.npz"
    save(path, x=X, y=np.array([0, 1, 0, 1]), f=np.asfortranarray(X[:, :, 0]), t=np.array(list("abca")))  # type: ignore[operator]
    source = open_source(path)
    assert source.names == ["x", "y", "f", "t"]
    assert len(source) == 4
    assert np.array_equal(source.column("x"), X)
    assert np.array_equal(source.column("f"), X[:, :, 0])
    assert source.column("t") == ["a", "b", "c", "a"]


def test_stored_arrays_stay_on_disk(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    assert isinstance(open_source(tmp_path / "a.npz").column("x"), np.memmap)


def test_names_of_classes_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.zeros(4), names=np.array(["a", "b"]), version=np.array(3))
    source = open_source(tmp_path / "a.npz")
    assert source.names == ["x", "y"]
    assert "names, version" in source.notes[0]


def test_a_npy_is_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((5, 3)))
    assert open_source(tmp_path / "t.npy").names == ["c0", "c1", "c2"]
    np.save(tmp_path / "r.npy", np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]))
    assert open_source(tmp_path / "r.npy").names == ["a", "b"]


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


def test_arrays_of_objects_are_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = np.array([Evil()], dtype=object)
    np.savez(tmp_path / "a.npz", x=evil)
    np.save(tmp_path / "a.npy", evil)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match="Python objects"):
            open_source(tmp_path / name)
    assert not capsys.readouterr().out


def test_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.zeros(5))
    with pytest.raises(DataError, match="x 4, y 5"):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize("array", [np.ones(3), np.ones((2, 2, 2)), np.array(5)])
def test_a_npy_that_is_no_table_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError):
        open_source(tmp_path / "a.npy")


def test_damaged_and_empty_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((50, 4)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="not a numpy array"):
        open_source(path)
    np.savez(tmp_path / "e.npz", x=np.ones((0, 3)))
    with pytest.raises(DataError, match="without rows"):
        open_source(tmp_path / "e.npz")
