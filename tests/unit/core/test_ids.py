import time

import pytest

from yunmo.core.errors import InvalidInput
from yunmo.core.ids import check_name, name_from_stem, new_id, split_reference


def test_ids_carry_their_type_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id("run"))
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(value.startswith("run_") for value in ids)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [("pets", ("pets", None, None)), ("pets:12", ("pets", 12, None)), ("pets@champion", ("pets", None, "champion"))],
)
def test_references_split_into_name_version_and_alias(
    reference: str, parts: tuple[str, int | None, str | None]
) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize("reference", ["", "pets:0", "pets:-1", "pets:x", "a:1@b", "Pets:1", "a/b:1", "../x", "pets@"])
def test_other_references_are_refused(reference: str) -> None:
    with pytest.raises(InvalidInput):
        split_reference(reference)


def test_the_stem_of_a_tar_gz_is_that_of_its_tar() -> None:
    assert name_from_stem("pets.tar") == "pets"


@pytest.mark.parametrize("stem", ["Cats & Dogs", "猫狗", "_x_", "a" * 200, "train", "..", "x/../y"])
def test_any_file_stem_gives_a_valid_name(stem: str) -> None:
    assert check_name(name_from_stem(stem), "model")
