"""An image folder in a zip: the folder's name is the class."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from yunmo.core.errors import DataError
from yunmo.data.fields.base import Values
from yunmo.data.sources.archive import Archive, MemberPicture
from yunmo.data.sources.base import Source

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"})
IMAGE, LABEL = "image", "label"

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
_LAYOUT = "Put each picture in a folder named after its class: cat/1.jpg, dog/2.jpg"


def is_picture_name(name: str) -> bool:
    """Say whether a file's name ends like a picture's."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


class ImagesSource(Source):
    """Pictures by class: columns ``image`` and ``label``.

    Args:
        path: the zip file.
        archive: the same, opened.

    Raises:
        DataError: no pictures, pictures outside of class folders, or several splits in one file.
    """

    kind = "images"
    target = LABEL

    def __init__(self, path: Path, archive: Archive) -> None:
        super().__init__(path)
        self._archive = archive
        self.names = [IMAGE, LABEL]
        top = _common_top(archive)
        members = sorted(archive.members)
        inside = [(name, PurePosixPath(name).parts[len(top) :]) for name in members]
        loose = [name for name, parts in inside if len(parts) < 2]
        if any(is_picture_name(name) for name in loose):
            first = next(name for name in loose if is_picture_name(name))
            raise DataError("a picture outside of any class folder", where=f"{path.name}, {first}", remedy=_LAYOUT)
        self._files = [name for name, parts in inside if len(parts) >= 2]
        self._labels = [parts[0] for _, parts in inside if len(parts) >= 2]
        if not self._files:
            raise DataError("no pictures in class folders", where=path.name, remedy=_LAYOUT)
        deep = all(len(parts) >= 3 for _, parts in inside if len(parts) >= 2)
        if deep and {label.lower() for label in self._labels} <= _SPLITS:
            raise DataError(
                f"holds several splits: {', '.join(sorted(set(self._labels)))}",
                where=path.name,
                remedy="Give each its own file or folder: yunmo train data/train --test data/test",
            )
        if loose:
            self.notes = (f"left out, being in no class folder: {', '.join(loose[:5])}",)

    def __len__(self) -> int:
        return len(self._files)

    def column(self, name: str) -> Values:
        """Return the pictures, or their folders' names."""
        if name == LABEL:
            return self._labels
        return [MemberPicture(self._archive, file, f"{self.path.name}, {file}") for file in self._files]

    def where(self, row: int) -> str:
        """Name archive and member."""
        return f"{self.path.name}, {self._files[row]}"

    def is_picture(self, name: str) -> bool:
        """The column ``image`` does."""
        return name == IMAGE

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


def _common_top(archive: Archive) -> tuple[str, ...]:
    """Return the folders around the class folders: a single one that itself holds only folders."""
    parts = [PurePosixPath(name).parts for name in archive.members]
    top: tuple[str, ...] = ()
    while True:
        depth = len(top)
        heads = {names[depth] for names in parts if len(names) > depth + 1}
        nested = [names for names in parts if len(names) > depth + 1]
        if (
            len(heads) != 1
            or not nested
            or any(len(names) == depth + 2 and is_picture_name(names[-1]) for names in nested)
            or not any(len(names) > depth + 2 for names in nested)
        ):
            return top
        top = (*top, heads.pop())
