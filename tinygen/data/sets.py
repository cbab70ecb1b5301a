"""Sets of images by name: the digits that come with tinygen, and MNIST and Fashion-MNIST in full, downloaded once."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinygen.data.bundle import digits, intensities, prepared
from tinygen.data.download import DownloadError, cache_folder, fetch
from tinygen.data.idx import read_idx
from tinygen.data.images import Dataset, LabelledImages
from tinygen.errors import InputError

__all__ = ["load"]

_log = logging.getLogger("tinygen.data")


class Source(NamedTuple):
    """Where a set comes from: mirrors in the order to try them, and the sha256 of its four files."""

    mirrors: tuple[str, ...]
    train_images: str
    train_labels: str
    test_images: str
    test_labels: str
    train_size: int = 60_000
    test_size: int = 10_000


SOURCES = {
    "full": Source(  # LeCun, Cortes & Burges 1998
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        train_images="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        train_labels="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        test_images="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        test_labels="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion": Source(  # Xiao, Rasul & Vollgraf 2017; the first mirror has no https, which the hash makes up for
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        train_images="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        train_labels="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        test_images="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        test_labels="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}


def load(
    name: str = "digits",
    size: int = 28,
    binarised: bool = False,
    *,
    cache: str | os.PathLike | None = None,
    fallback: bool = True,
) -> Dataset:
    """A set of images by the name that demos take as `--data`.

    name:      "digits", the 10,000 that come with tinygen; "full", MNIST; "fashion", Fashion-MNIST. Of the last two,
               60,000 images are to learn from and the official test set of 10,000 is held out.
    size, binarised: as for `digits`
    cache:     the folder to keep downloads in: see `cache_folder`
    fallback:  what happens when a file cannot be downloaded: a warning in the log, and the bundled digits in place of
               the set (the `name` of what is returned says so); with False, DownloadError

    Raises InputError for an unknown name, and OutputError when the cache folder cannot be written.
    """
    if name == "digits":
        return digits(size, binarised)
    if name not in SOURCES:
        near = difflib.get_close_matches(str(name), ["digits", *SOURCES], 1)
        meant = f" Was {near[0]!r} meant?" if near else ""
        raise InputError(f"There is no data set {name!r}.{meant} There are: digits, {', '.join(SOURCES)}.")
    try:
        data = _downloaded(name, cache_folder(cache))
    except DownloadError as error:
        if not fallback:
            raise
        _log.warning("%s Going on with the 10,000 digits that come with tinygen in place of %r.", error, name)
        return digits(size, binarised)
    return prepared(data, size, binarised)


def _downloaded(name: str, folder: Path) -> Dataset:
    source = SOURCES[name]
    folder = folder / name  # the files of the two sets have the same names

    def part(prefix: str, n: int, images_hash: str, labels_hash: str) -> LabelledImages:
        images = fetch(f"{prefix}-images-idx3-ubyte.gz", images_hash, source.mirrors, folder)
        labels = fetch(f"{prefix}-labels-idx1-ubyte.gz", labels_hash, source.mirrors, folder)
        return LabelledImages(intensities(read_idx(images, (n, 28, 28))), read_idx(labels, (n,)).astype(np.int64))

    train = part("train", source.train_size, source.train_images, source.train_labels)
    return Dataset(name, train, part("t10k", source.test_size, source.test_images, source.test_labels))
