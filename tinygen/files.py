"""Atomic writes: a file is there in full under its name, or the old one still is; never half of one.

The contents go to a temporary file in the same folder, which then takes the name in one step (`os.replace`). A program
that is killed in between leaves at most the temporary file, whose name begins with a dot.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinygen.errors import TinygenError

__all__ = ["OutputError", "atomic", "make_folder", "write_json", "write_text"]


class OutputError(TinygenError, OSError):
    """A folder or file cannot be written."""


def make_folder(path: str | os.PathLike) -> Path:
    """Creates the folder `path` with its parents unless it is there, and checks that files can be made in it.

    Raises OutputError with the reason when that fails.
    """
    path = Path(path)
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = _temporary_beside(path / "probe")
        probe.touch()
        probe.unlink()
    return path


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the path of a temporary file to write; it takes the name `path` when the block ends without an error.

        with atomic("out/samples.png") as temporary:
            figure.savefig(temporary)

    The temporary name keeps the suffix of `path`, from which Matplotlib, Pillow and NumPy tell the format. If the block
    raises, the temporary file is removed and whatever `path` held before is untouched. Missing parent folders are
    created. Raises OutputError when the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    try:
        yield temporary
        with _explained(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NumPy scalars and arrays become numbers and lists.

    NaN and infinities, which JSON has no word for, are written as null.
    """
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
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that you may write to, or make room."
        ) from error
