import hashlib
from importlib import resources

import numpy as np
import pytest

from tinygen.data import bundle, digits
from tinygen.errors import InputError


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_the_split_is_balanced_by_class_and_shares_no_image():
    train, held_out = (part for part in digits()[1:])
    assert np.bincount(train.labels).tolist() == [900] * 10 and np.bincount(held_out.labels).tolist() == [100] * 10
    assert not {x.tobytes() for x in train.images} & {x.tobytes() for x in held_out.images}


@pytest.mark.parametrize("size", [28, 14])
def test_images_are_float32_in_0_to_1_with_features_last(size):
    for part, n in zip(digits(size)[1:], (9000, 1000), strict=True):
        assert part.images.shape == (n, size, size, 1) and part.images.dtype == np.float32
        assert (part.images.min(), part.images.max()) == (0, 1)
        assert part.labels.shape == (n,) and part.labels.dtype == np.int64


@pytest.mark.parametrize(
    "options, train, held_out",
    [
        ((28, False), "a48709683be4a227", "5158b9eac8c55267"),
        ((14, False), "f5ace832766cd717", "7a9fc7587acc81b8"),
        ((28, True), "cdbaf945f8cdab55", "ffa656698bc7174a"),
        ((14, True), "6a9dcab86b615216", "6ad3660f71ed1262"),
    ],
)
def test_the_held_out_images_and_their_static_binarisation_are_the_same_for_ever(options, train, held_out):
    data = digits(*options)
    assert (sha256(data.train.images)[:16], sha256(data.held_out.images)[:16]) == (train, held_out)


def test_labels_belong_to_their_images():
    """A nearest-mean classifier, which needs both sets and their labels in step, is right four times in five."""
    train, held_out = (part._replace(images=part.images.reshape(-1, 784)) for part in digits()[1:])
    means = np.stack([train.images[train.labels == digit].mean(0) for digit in range(10)])
    distance = (means**2).sum(1) - 2 * held_out.images @ means.T
    assert np.mean(distance.argmin(1) == held_out.labels) > 0.79


def test_an_unknown_size_is_refused():
    with pytest.raises(InputError, match="size 28 or 14, not 32"):
        digits(32)


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "gone"])
def test_a_damaged_bundle_is_refused_before_it_is_parsed(damage, tmp_path, monkeypatch):
    contents = bytearray((resources.files("tinygen.data") / bundle.FILE).read_bytes())
    if damage == "flipped bit":
        contents[1000] ^= 4
    if damage != "gone":
        (tmp_path / bundle.FILE).write_bytes(contents[: -1 if damage == "cut short" else None])
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="cannot be read" if damage == "gone" else "is damaged"):
        digits()
