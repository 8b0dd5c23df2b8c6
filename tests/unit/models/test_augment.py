import torch

from yunmo.core.fields import Augment, FieldStatistics, ImageField
from yunmo.models.augment import Augmentation, augment

FILL = torch.tensor([10.0, 20.0, 30.0])


def _pictures(count: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(40, 256, (count, 12, 10, 3), dtype=torch.uint8)


def test_nothing_asked_changes_nothing() -> None:
    pictures = _pictures()
    assert torch.equal(augment(pictures, Augment(), FILL), pictures)


def test_flip_mirrors_about_half() -> None:
    pictures = _pictures()
    changed = augment(pictures, Augment(flip=True), FILL)
    mirrored = [torch.equal(after, before.flip(1)) for after, before in zip(changed, pictures, strict=True)]
    same = [torch.equal(after, before) for after, before in zip(changed, pictures, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 15 < sum(mirrored) < 50


def test_vertical_flip_turns_rows() -> None:
    pictures = _pictures()
    changed = augment(pictures, Augment(vertical_flip=True), FILL)
    assert any(torch.equal(after, before.flip(0)) for after, before in zip(changed, pictures, strict=True))


def test_crop_shifts_and_reflects() -> None:
    picture = torch.arange(12, dtype=torch.uint8)[None, :, None, None].expand(200, 12, 10, 1)
    changed = augment(picture, Augment(crop=2), FILL[:1])
    starts = {tuple(column[:3].tolist()) for column in changed[:, :, 0, 0]}
    assert starts == {(2, 1, 0), (1, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4)}


def test_cutout_blanks_one_square_with_the_mean() -> None:
    changed = augment(_pictures(), Augment(cutout=4), FILL)
    blank = (changed == FILL.to(torch.uint8)).all(3)
    assert blank.sum((1, 2)).max() == 16
    assert blank.any(2).any(1).all()


def test_rotation_keeps_the_middle_and_fills_with_the_mean() -> None:
    picture = torch.full((32, 15, 15, 3), 200, dtype=torch.uint8)
    changed = augment(picture, Augment(rotate=45), FILL)
    assert torch.allclose(changed[:, 7, 7], torch.full((32, 3), 200.0), atol=1e-3)
    assert changed[:, 0, 0].min() < 50


def test_a_shift_moves_by_whole_shares() -> None:
    picture = torch.zeros(64, 8, 8, 1, dtype=torch.uint8)
    picture[:, 4, 4] = 255
    changed = augment(picture, Augment(shift=0.25), torch.zeros(1))
    rows = (changed.amax(2).squeeze(2) * torch.arange(8)).sum(1) / changed.amax(2).sum((1, 2)).clamp(min=1)
    assert rows.max() - rows.min() > 2


def test_brightness_stays_within_bytes() -> None:
    changed = augment(_pictures(), Augment(brightness=0.5), FILL)
    assert changed.max() <= 255
    assert changed.float().mean((1, 2, 3)).std() > 10


def test_the_seed_decides() -> None:
    spec = Augment(flip=True, crop=2, cutout=3, rotate=10, scale=0.1, shift=0.1, brightness=0.1)
    first, second = augment(_pictures(), spec, FILL), augment(_pictures(), spec, FILL)
    assert torch.equal(first, second)


def test_alternating_flips_show_each_picture_both_ways_in_two_epochs() -> None:
    pictures = _pictures()
    statistics = {
        "photo": FieldStatistics("photo", "image", "input", encode_version=1, count=64, mean=(0.1, 0.2, 0.3)),
    }
    field = ImageField(name="photo", augment=Augment(flip=True, alternate=True))
    rows = torch.randperm(64)
    views = []
    for epoch in range(4):
        torch.rand(epoch)  # other randomness must not matter: a resumed training has drawn another amount
        augmentation = Augmentation((field,), statistics, 64, seed=3)
        views.append(augmentation({"photo": pictures[rows]}, rows, epoch)["photo"])
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[1], views[3])
    assert torch.equal(views[1], views[0].flip(2))
    mirrored = (views[0] == pictures[rows].flip(2)).flatten(1).all(1)
    assert 15 < mirrored.sum() < 50
    other = Augmentation((field,), statistics, 64, seed=4)
    assert not torch.equal(other({"photo": pictures[rows]}, rows, 0)["photo"], views[0])
