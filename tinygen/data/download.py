"""Files from the internet: fetched once, checked by their hash, kept in a cache folder.

Nothing that comes over the network is trusted: a file is read up to a size limit and within a time limit, and its
sha256 must be the one written down here before anything looks into it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygen.errors import InputError, TinygenError
from tinygen.files import atomic, make_folder

__all__ = ["DownloadError", "cache_folder", "fetch"]

LIMIT = 32 * 2**20  # bytes; the largest file of the data sets is 25 MiB
CHUNK = 2**16

_log = logging.getLogger("tinygen.data")


class DownloadError(TinygenError, OSError):
    """No mirror gave the file."""


def cache_folder(folder: str | os.PathLike | None = None) -> Path:
    """Where downloads are kept: `folder`, else $TINYGEN_CACHE, else `tinygen` in the user's cache folder.

    That is $XDG_CACHE_HOME, or by platform ~/.cache, ~/Library/Caches (macOS), %LOCALAPPDATA% (Windows). Nothing is
    created.
    """
    chosen = folder or os.environ.get("TINYGEN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # its specification has relative paths ignored
        return Path(xdg) / "tinygen"
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tinygen" / "cache"
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "tinygen"
    except RuntimeError as error:
        raise InputError(f"There is no home folder to cache downloads in ({error}). Set TINYGEN_CACHE.") from error


def fetch(
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    folder: Path,
    *,
    limit: int = LIMIT,
    timeout: float = 10,
    deadline: float = 600,
) -> bytes:
    """The contents of the file `name`, whose hash is `sha256`, from `folder` or else from the first mirror that has it.

    mirrors:  addresses that `name` is appended to, tried in this order
    limit:    bytes that a file may have
    timeout:  seconds to wait for a connection, and for each next piece of the file
    deadline: seconds that one mirror may take in all

    What was downloaded is in `folder` afterwards, atomically. A file there that does not have the hash is fetched
    again, with a warning in the log. Raises OutputError when the folder cannot be written (before anything is
    downloaded), and DownloadError, which says what each mirror did, when none gave the file.
    """
    path = folder / name
    contents = _cached(path, sha256, limit)
    if contents is not None:
        return contents
    make_folder(folder)
    failures = []
    for mirror in mirrors:
        try:
            contents = _download(mirror + name, limit, timeout, deadline)
        except OSError as error:
            failures.append(f"{mirror}: {str(error).removeprefix('<urlopen error ').removesuffix('>')}")
            continue
        if _sha256(contents) == sha256:
            with atomic(path) as temporary:
                temporary.write_bytes(contents)
            return contents
        failures.append(f"{mirror}: sent {len(contents):,} bytes that are not the file (its sha256 differs)")
    raise DownloadError(f"Cannot download {name}. {'; '.join(failures)}.")


def _cached(path: Path, sha256: str, limit: int) -> bytes | None:
    """What the cache holds under this name, if it is the right file."""
    try:
        contents = path.read_bytes() if path.stat().st_size <= limit else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s cannot be read (%s) and is fetched again.", path, error.strerror)
        return None
    if _sha256(contents) == sha256:
        return contents
    _log.warning("%s is damaged (its sha256 is not that of the file) and is fetched again.", path)
    return None


def _download(url: str, limit: int, timeout: float, deadline: float) -> bytes:
    """The bytes at `url`. Raises OSError for whatever goes wrong on the way."""
    from http.client import HTTPException  # imported here, as they would double the time that `import tinygen` adds
    from urllib.request import urlopen

    end = time.monotonic() + deadline
    contents = bytearray()
    try:
        with urlopen(url, timeout=timeout) as response, _bar(url, response.headers) as bar:
            while piece := response.read1(CHUNK):  # whatever has arrived, so that the clock is looked at
                contents += piece
                bar.update(len(piece))
                if len(contents) > limit:
                    raise OSError(f"sent more than {limit:,} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"sent only {len(contents):,} bytes in {deadline:g} s")
    except HTTPException as error:
        raise OSError(f"sent what is not HTTP ({type(error).__name__}: {error})") from error
    return bytes(contents)


def _bar(url: str, headers: Mapping[str, str]) -> Any:
    """A progress bar that appears when a download takes longer than a second."""
    from tqdm import tqdm

    announced = headers.get("Content-Length", "")
    total = int(announced) if announced.isdecimal() else None
    return tqdm(total=total, desc=url.rpartition("/")[2], unit="B", unit_scale=True, leave=False, delay=1)


def _sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()
