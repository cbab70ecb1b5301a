"""A progress bar on standard error: a line that is drawn over in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["bar"]


@contextlib.contextmanager
def bar(total: int, name: str, *, unit: str = "step", done: int = 0, shown: bool = True) -> Iterator[Any]:
    """A tqdm bar; log messages (a kernel being compiled, say) appear above it rather than through it.

    One that is not `shown` leaves tqdm alone, whose lock is shared with forked processes and dies with a killed one.
    """
    if not shown:
        yield _Hidden()
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    file, interval = (sys.stderr, 0.1) if sys.stderr.isatty() else (_Lines(), 5.0)  # seconds between two drawings
    options = {"initial": done, "unit": unit, "mininterval": interval, "file": file}
    with logging_redirect_tqdm(), tqdm(total=total, desc=name, **options) as bar:
        yield bar


class _Hidden:
    """Takes what a bar is told and shows nothing."""

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        pass


class _Lines:
    """Standard error where nothing can be drawn over, a file or a pipe: each drawing of the bar becomes a line."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()
