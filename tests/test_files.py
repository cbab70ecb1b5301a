"""Files that are whole or not there, and .npz files that nobody need trust."""

import io
import os
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.errors import InputError
from tinygen.files import OutputError, atomic, make_folder, read_npz, remove_leftovers, write_npz, write_text

DTYPES = ["<f4", "<f8", "<f2", "<i8", "<i4", "|u1", "<u8", "|b1", "|S3", ">f4"]
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
GOOD = {"a": np.arange(6.0).reshape(2, 3), "model.net.0.weight": np.ones(3, np.float32)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


# -- arrays ------------------------------------------------------------------------------------------------------------


@given(arrays=st.dictionaries(st.from_regex(r"[a-z][a-z0-9._]{0,8}", fullmatch=True), ARRAYS, max_size=4))
def test_what_is_written_is_read_back(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    write_npz(path, arrays)
    read = read_npz(path)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype.newbyteorder("<") and read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array)


def test_the_same_arrays_give_the_same_bytes_and_numpy_reads_them(path, tmp_path):
    write_npz(path, GOOD)
    write_npz(tmp_path / "again.npz", GOOD)
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["a", "model.net.0.weight", "sha256"]
        np.testing.assert_array_equal(file["a"], GOOD["a"])


@pytest.mark.parametrize("name", ["sha256", "../a", "/a", "a/b", "a\\b", ".a", "", "a\nb"])
def test_an_array_is_not_written_under_a_name_that_could_not_be_read(path, name):
    with pytest.raises(InputError, match="cannot be the name"):
        write_npz(path, {name: np.zeros(1)})
    with pytest.raises(InputError, match="plain numbers"):
        write_npz(path, {"a": np.array([None])})
    assert not path.exists()


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def header(text, body=b""):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1") + body


def zipped(entries, compression=zipfile.ZIP_STORED):
    """A zip file with these (name, contents), in bytes; names as they are, even twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, contents in entries:
            archive.writestr(zipfile.ZipInfo(name), contents, compress_type=compression)
    return file.getvalue()


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


PLAIN = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }\n"
BAD = {
    "an empty file": b"",
    "text": b"these are no arrays\n" * 50,
    "a pickle": pickle.dumps({"a": np.zeros(3)}),
    "a zip of text": zipped([("a.txt", b"text")]),
    "an array that is text": zipped([("a.npy", b"text")]),
    "objects": zipped([("a.npy", npy(np.array([{}], object), allow_pickle=True))]),
    "records": zipped([("a.npy", npy(np.zeros(2, "f4,f4")))]),
    "complex numbers": zipped([("a.npy", npy(np.zeros(2, "c8")))]),
    "a path out of the folder": zipped([("../a.npy", npy(1.0))]),
    "an absolute path": zipped([("/absolute/a.npy", npy(1.0))]),
    "a path of Windows": zipped([("C:\\a.npy", npy(1.0))]),
    "a hidden name": zipped([(".a.npy", npy(1.0))]),
    "a bomb": zipped([("a.npy", npy(np.zeros(10**6)))], zipfile.ZIP_DEFLATED),
    "a longer array than its bytes": zipped([("a.npy", header(PLAIN % "3,", b"12345678"))]),
    "a shorter array than its bytes": zipped([("a.npy", header(PLAIN % "", bytes(24)))]),
    "an array larger than memory": zipped([("a.npy", header(PLAIN % "999999999999999999, 999999999999", bytes(8)))]),
    "an empty array larger than memory": zipped([("a.npy", header(PLAIN % "0, 999999999999999999, 999999999999999"))]),
    "too many axes": zipped([("a.npy", header(PLAIN % ", ".join(["1"] * 200), bytes(8)))]),
    "a huge header": zipped([("a.npy", header("{'descr': " + "(" * 60_000))]),
    "code in the header": zipped([("a.npy", header(PLAIN % "__import__('os').abort(),", bytes(8)))]),
    "neither true nor false": zipped([("a.npy", header(PLAIN.replace("<f8", "|b1") % "1,", b"\x07"))]),
    "no checksum": zipped([("a.npy", npy(1.0))]),
    "another checksum": zipped([("a.npy", npy(1.0)), ("sha256.npy", npy(np.bytes_(b"0" * 64)))]),
    "a checksum of another kind": zipped([("a.npy", npy(1.0)), ("sha256.npy", npy(np.zeros(9)))]),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_no_such_file_should_be_is_refused_in_one_paragraph(path, kind):
    path.write_bytes(BAD[kind])
    with pytest.raises(InputError) as caught:
        read_npz(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_two_arrays_of_one_name_are_refused(path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(zipped([("a.npy", npy(1.0)), ("a.npy", npy(2.0))]))
    with pytest.raises(InputError, match="two arrays of the same name"):
        read_npz(path)


def test_arrays_that_share_their_bytes_are_more_than_the_file_can_hold(path):
    """The other kind of zip bomb: a directory of many entries that all lead to one array."""
    data = zipped([("a.npy", npy(np.zeros(500))), ("b.npy", npy(np.zeros(500)))])
    start = data.index(b"PK\x01\x02")
    entry, end = data[start : data.index(b"PK\x01\x02", start + 1)], bytearray(data[data.index(b"PK\x05\x06") :])
    directory = b"".join(entry.replace(b"a.npy", b"%c.npy" % (97 + i)) for i in range(20))
    end[8:16] = (20).to_bytes(2, "little") * 2 + len(directory).to_bytes(4, "little")
    path.write_bytes(data[:start] + directory + end)
    with pytest.raises(InputError, match="declares"):
        read_npz(path)


def test_nothing_in_a_file_is_executed(path, tmp_path):
    np.savez(path, a=np.array([Bomb(str(tmp_path / "executed"))], object))
    with pytest.raises(InputError):
        read_npz(path)
    assert not (tmp_path / "executed").exists()
    np.load(path, allow_pickle=True)["a"]
    assert (tmp_path / "executed").exists()                                  # the bomb is live


def test_compressed_arrays_are_read_up_to_the_limit_that_is_given(path):
    np.savez_compressed(path, a=np.zeros(1000))
    assert read_npz(path, limit=9000, sealed=False)["a"].shape == (1000,)
    with pytest.raises(InputError, match="declares 8,128 bytes of arrays where at most 8,000 are expected"):
        read_npz(path, limit=8000, sealed=False)


@pytest.mark.parametrize("there", ["missing.npz", "."])
def test_a_file_that_cannot_be_opened_is_named(tmp_path, there):
    with pytest.raises(InputError, match="cannot be read: .* Is the path right"):
        read_npz(tmp_path / there)


def test_every_flipped_bit_is_noticed_or_makes_no_difference(path):
    write_npz(path, {"a": np.arange(3.0)})
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_npz(path)["a"], np.arange(3.0))
        except InputError as error:
            assert "\n" not in str(error)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(path):
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    with pytest.raises(OutputError, match="No space left"), atomic(path) as temporary:
        temporary.write_text("new")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and os.listdir(path.parent) == [path.name]


def test_a_full_disk_is_explained_and_leaves_the_old_file(path):
    """A limit on the size of files is what a full disk is to a program: a write that fails half-way."""
    write_npz(path, GOOD)
    old = path.read_bytes()
    code = (
        "import resource, sys, numpy as np; from tinygen.files import write_npz, OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: write_npz(sys.argv[1], {'a': np.zeros(10**6)})\n"
        "except OutputError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert re.fullmatch(rf"Cannot write {path}: File too large\..*make room\.\n", ran.stdout) and not ran.stderr
    assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]


def test_what_killed_programs_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.123.npz", ".a.b.npz", ".a.123.txt", "a.npz", ".aa.123.npz"):
        write_text(tmp_path / name, "")
    (tmp_path / ".probe.77").touch()
    make_folder(tmp_path)
    remove_leftovers(tmp_path / "a.npz")
    assert sorted(os.listdir(tmp_path)) == [".a.123.txt", ".a.b.npz", ".aa.123.npz", "a.npz"]
