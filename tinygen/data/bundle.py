"""The 10,000 handwritten digits that come with tinygen: a part of the MNIST training set, see NOTICE.txt."""

from __future__ import annotations

import numpy as np

from tinygen.data.images import Dataset, LabelledImages
from tinygen.errors import InputError
from tinygen.files import read_packaged

__all__ = ["digits"]

FILE = "mnist_train_10k.npz"
SHA256 = "6cbd92a82f46f1d03e7456f1c7ba06c49e517d944101b3d18af557a2c079886f"


def digits(size: int = 28, binarised: bool = False) -> Dataset:
    """9,000 digits to learn from (900 of each class) and 1,000 held out (100 of each).

    size:      28, or 14 for images shrunk by half (`tinygen.data.shrink`)
    binarised: whether to give pixels 0 and 1, drawn once (`Dataset.binarised`), in place of intensities

    Held out is every tenth image of its class in the order of the file: a rule that needs no random numbers, so that
    the split is the same for ever. All 10,000 are from MNIST's training set: a model trained on the full set knows
    them, and is measured on the test set of that.

    Raises InputError when the file that was installed is not there or not intact.
    """
    images, labels = _bundle()
    held_out = np.zeros(len(labels), bool)
    for digit in range(10):
        held_out[np.flatnonzero(labels == digit)[9::10]] = True
    parts = [LabelledImages(intensities(images[own]), labels[own].astype(np.int64)) for own in (~held_out, held_out)]
    return prepared(Dataset("digits", *parts), size, binarised)


def prepared(data: Dataset, size: int, binarised: bool) -> Dataset:
    """A set of 28 x 28 images in the form that was asked for: size 28 or 14, with intensities or 0 and 1."""
    if size not in (28, 14):
        raise InputError(f"The images come in size 28 or 14, not {size!r}.")
    data = data if size == 28 else data.shrunk()
    return data.binarised() if binarised else data


def intensities(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) to float32 (N, H, W, 1) in [0, 1]."""
    return images[..., None].astype(np.float32) / np.float32(255)


def _bundle() -> tuple[np.ndarray, np.ndarray]:
    """Images (10000, 28, 28) and labels (10000,), uint8. The hash is checked before anything is parsed."""
    arrays = read_packaged("tinygen.data", FILE, SHA256, "digits that come with tinygen")
    return arrays["images"], arrays["labels"]
