"""Files that are whole: atomic writes, and arrays in .npz files that nobody need trust.

Atomic: a file is there in full under its name, or the old one still is; never half of one. The contents go to a
temporary file in the same folder, which then takes the name in one step (`os.replace`). A program that is killed in
between leaves at most the temporary file, whose name begins with a dot.

`read_npz` reads what may be damaged or made to do harm. Nothing in the file is executed or evaluated: no pickle, and
the header of each array is matched against the one form in which NumPy writes plain ones. Sizes are compared with what
is declared before anything is decompressed, and `write_npz` seals the contents with a checksum.
"""

import contextlib
import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.errors import InputError, TinygenError

__all__ = ["OutputError", "atomic", "make_folder", "read_npz", "read_packaged", "write_json", "write_npz", "write_text"]


class OutputError(TinygenError, OSError):
    """A folder or file cannot be written."""


def make_folder(path: str | os.PathLike) -> Path:
    """Creates the folder `path` with its parents unless it is there, and checks that files can be made in it.

    Raises OutputError with the reason when that fails.
    """
    path = Path(path)
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path / "probe")
        probe = _temporary_beside(path / "probe")
        probe.touch()
        probe.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the path of a temporary file to write; it takes the name `path` when the block ends without an error.

        with atomic("out/samples.png") as temporary:
            figure.savefig(temporary)

    The temporary name keeps the suffix of `path`, from which Matplotlib, Pillow and NumPy tell the format. If the block
    raises, the temporary file is removed and whatever `path` held before is untouched. Missing parent folders are
    created. Raises OutputError when the folder or the file cannot be written, also if that shows inside the block (a
    full disk, say).
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # the error of the block, if any, is the one to tell
                temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Removes the temporary files that killed programs left beside `path`. Nobody else may be writing it meanwhile."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
    with explained(path):
        for file in path.parent.iterdir():
            if name.fullmatch(file.name):
                file.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NumPy scalars and arrays become numbers and lists.

    NaN and infinities, which JSON has no word for, are written as null.
    """
    import json

    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NumPy values, dicts, lists and paths in plain form, NaN and infinities as None."""
    if hasattr(value, "tolist"):                                       # NumPy arrays and scalars
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return str(value) if isinstance(value, os.PathLike) else value


def _temporary_beside(path: Path) -> Path:
    """A name in the same folder (so that the replacement is one step), unique to this process, with the same suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextlib.contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """Within this context, what the system says against writing `path` is raised as an OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that you may write to, or make room."
        ) from error


def in_words(error: BaseException) -> str:
    """What an error of Python or of a library says, on one line and no longer than a line or two."""
    said = " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")
    return (said if len(said) < 160 else said[:160] + " ...") or type(error).__name__


# -- arrays ------------------------------------------------------------------------------------------------------------

SEAL = "sha256"
LONGEST_HEADER = 4096
NAME = re.compile(r"(?!\.)[^/\\:\x00-\x1f]+\.npy")
DTYPE = r"<[fiu][248]|\|[iu]1|\|b1|\|S[1-9]\d{0,17}"  # numbers, little end first, and bytes
# The header that NumPy writes for an array of these, last index fastest.
HEADER = re.compile(
    rf"\{{'descr': '({DTYPE})', 'fortran_order': False, 'shape': \(((?:\d{{1,18}}, )*\d{{1,18}},?)?\), \}} *\n"
)


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes arrays of numbers or bytes to an .npz file, atomically, and a checksum of them all beside them.

    NumPy reads it (`np.load`); `read_npz` verifies it. The same arrays give the same file, byte for byte. When this
    returns the file is on the disk, not only in the system's memory. Raises OutputError when it cannot be written.
    """
    import zipfile

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    arrays = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not re.fullmatch(DTYPE, array.dtype.str):
            raise InputError(f"write_npz: {name} holds {array.dtype}; plain numbers and bytes can be kept.")
        if not NAME.fullmatch(f"{name}.npy") or name == SEAL:
            raise InputError(f"write_npz: {name!r} cannot be the name of an array; give it one without / \\ and :.")
    arrays[SEAL] = np.bytes_(_digest(arrays))
    with atomic(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def read_npz(path: str | os.PathLike, *, limit: int | None = None, sealed: bool = True) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, which need not be trusted.

    limit:  of all arrays together, in bytes, as the file declares them; by default the size of the file, so that what
            is compressed is refused
    sealed: whether the checksum that `write_npz` adds must be there and hold

    Raises InputError, one paragraph, for everything that such a file should not be: damaged, cut short, not a .npz at
    all, larger than declared, with objects (pickles), names twice, or names that lead to another folder.
    """
    import struct
    import zipfile
    import zlib

    try:
        file = open(path, "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Is the path right?") from None
    # what zipfile and zlib raise over damaged files
    damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)
    try:
        with file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(entries, os.fstat(file.fileno()).st_size if limit is None else limit)
            arrays = {entry.filename.removesuffix(".npy"): _array(archive.read(entry), entry) for entry in entries}
        if sealed:
            _break_seal(arrays)
        return arrays
    except (*damage, MemoryError) as error:
        told = in_words(error)
    raise InputError(f"{path}: {told}. The file is damaged, or was not written by tinygen; take another copy.")


def _check_entries(entries: list, limit: int) -> None:
    """Before anything is decompressed: whether names and declared sizes are in order."""
    names = [entry.orig_filename for entry in entries]
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"it holds an entry called {name[:80]!r}, which is not the name of an array")
    if len(set(names)) < len(names):
        raise ValueError("it holds two arrays of the same name")
    declared = sum(entry.file_size for entry in entries)
    if declared > limit:
        raise ValueError(f"it declares {declared:,} bytes of arrays where at most {limit:,} are expected")


def _array(data: bytes, entry: Any) -> np.ndarray:
    """The array in the bytes of a .npy file of version 1.0."""
    length = int.from_bytes(data[8:10], "little")
    header = HEADER.fullmatch(data[10 : 10 + min(length, LONGEST_HEADER)].decode("latin-1"))
    if data[:8] != b"\x93NUMPY\x01\x00" or header is None:
        raise ValueError(f"{entry.filename} is not a plain array of numbers")
    dtype = np.dtype(header[1])
    shape = tuple(int(n) for n in re.findall(r"\d+", header[2] or ""))
    if len(data) != 10 + length + dtype.itemsize * math.prod(shape):
        raise ValueError(f"{entry.filename} does not hold the {header[1]} array of shape {shape} that it declares")
    if dtype.kind == "b" and max(data[10 + length :], default=0) > 1:
        raise ValueError(f"{entry.filename} holds what is neither true nor false")
    return np.ndarray(shape, dtype, data, 10 + length).copy()


def _break_seal(arrays: dict[str, np.ndarray]) -> None:
    """Removes the checksum from `arrays` and compares it with theirs."""
    seal = arrays.pop(SEAL, None)
    if seal is None:
        raise ValueError("it has no checksum")
    if seal.tobytes() != _digest(arrays):
        raise ValueError("its checksum does not match its contents")


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 over the name, dtype, shape and bytes of every array, in hexadecimal digits."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest().encode()


def read_packaged(package: str, file: str, sha256: str, what: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz that comes with tinygen in `package`. The hash is checked before anything is parsed.

    Raises InputError, which calls the file's contents `what`, when it is not there or not intact.
    """
    import hashlib
    from importlib import resources

    advice = f"Install tinygen again; in a clone, `git checkout {package.replace('.', '/')}` restores it."
    try:
        contents = (resources.files(package) / file).read_bytes()
    except OSError as error:
        raise InputError(f"The {what} cannot be read ({error}). {advice}") from error
    found = hashlib.sha256(contents).hexdigest()
    if found != sha256:
        raise InputError(f"{file}, the {what}, is damaged: sha256 {found}. {advice}")
    with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
