import gzip
import hashlib

import numpy as np
import pytest

from tinygen.data import DownloadError, digits, load
from tinygen.data import sets as module
from tinygen.errors import InputError
from tinygen.files import OutputError

rng = np.random.default_rng(0)
SMALL = {
    "train-images-idx3-ubyte.gz": rng.integers(0, 256, (20, 28, 28), np.uint8),
    "train-labels-idx1-ubyte.gz": rng.integers(0, 10, 20, np.uint8),
    "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (10, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte.gz": rng.integers(0, 10, 10, np.uint8),
}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A set of 20 + 10 images in place of MNIST, on a mirror that is a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    hashes = []
    for name, array in SMALL.items():
        header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (folder / name).write_bytes(gzip.compress(header + array.tobytes()))
        hashes.append(hashlib.sha256((folder / name).read_bytes()).hexdigest())
    monkeypatch.setitem(module.SOURCES, "full", module.Source((folder.as_uri() + "/",), *hashes, 20, 10))
    return folder


def test_the_full_set_is_what_its_four_files_hold(mirror, tmp_path):
    data = load("full", cache=tmp_path / "cache")
    train, train_labels, test, test_labels = SMALL.values()
    assert data.name == "full" and data.train.images.dtype == np.float32 and data.train.labels.dtype == np.int64
    np.testing.assert_array_equal(np.rint(255 * data.train.images[..., 0]), train)
    np.testing.assert_array_equal(np.rint(255 * data.held_out.images[..., 0]), test)
    np.testing.assert_array_equal(data.train.labels, train_labels)
    np.testing.assert_array_equal(data.held_out.labels, test_labels)
    assert {p.name for p in (tmp_path / "cache" / "full").iterdir()} == set(SMALL)


def test_the_full_set_comes_small_and_binarised_too(mirror, tmp_path):
    data = load("full", 14, binarised=True, cache=tmp_path)
    assert data.train.images.shape == (20, 14, 14, 1) and set(np.unique(data.train.images)) == {0, 1}


def test_without_a_mirror_the_bundle_takes_the_place_of_the_full_set_with_one_warning(mirror, tmp_path, caplog):
    (mirror / "t10k-labels-idx1-ubyte.gz").unlink()
    data = load("full", 14, cache=tmp_path)
    assert data.name == "digits" and np.array_equal(data.train.images, digits(14).train.images)
    (record,) = caplog.records
    assert "Cannot download t10k-labels-idx1-ubyte.gz" in record.getMessage()
    assert "Going on with the 10,000 digits" in record.getMessage() and "\n" not in record.getMessage()


def test_without_a_mirror_and_without_a_fallback_there_is_an_error(mirror, tmp_path):
    (mirror / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DownloadError, match="Cannot download train-images"):
        load("full", cache=tmp_path, fallback=False)


def test_a_cache_folder_that_cannot_be_written_is_an_error_and_no_reason_to_fall_back(mirror, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="Cannot write"):
        load("full", cache=tmp_path / "file")


def test_the_bundle_is_a_set_by_the_name_of_digits():
    np.testing.assert_array_equal(load("digits", 14).held_out.images, digits(14).held_out.images)


@pytest.mark.parametrize("name, answer", [("fasion", "Was 'fashion' meant"), ("celeba", "set 'celeba'. There are")])
def test_an_unknown_set_is_refused_and_the_nearest_name_suggested(name, answer):
    with pytest.raises(InputError, match=answer):
        load(name)


def test_the_hashes_are_those_of_the_notice():
    notice = (module.Path(module.__file__).parent / "NOTICE.txt").read_text()
    for source in module.SOURCES.values():
        assert all(hash in notice for hash in source[1:5]) and len(set(source[1:5])) == 4
        assert all(mirror.partition("//")[2] in notice for mirror in source.mirrors)
