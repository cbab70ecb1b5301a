"""python -m tinygen.gradcheck FILE.py: check the ops that a file registers against finite differences.

Only the command is here; the function `tinygen.gradcheck` and how it compares are in `tinygen.finite_differences`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np

from tinygen.domains import RandomDraw
from tinygen.errors import InputError, TinygenError
from tinygen.finite_differences import Kink, check_op
from tinygen.registry import REGISTRY, Op


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tinygen.gradcheck", description="Check the ops that a file registers, to second order."
    )
    parser.add_argument("file", type=Path, help="a Python file that declares ops with tinygen.op")
    parser.add_argument("--examples", type=int, default=25, help="how many inputs to draw for each op (25)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    before = set(REGISTRY)
    try:
        _import(options.file)
        new = [op for name, op in REGISTRY.items() if name not in before]
        if not new:
            raise InputError(f"{options.file} registers no op; declare one with tinygen.op, see tinygen/registry.py.")
        failed = [op for op in new if not _examine(op, options.examples, options.seed)]
    except TinygenError as error:
        print(f"gradcheck: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def _import(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{file} is not a file.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is not a Python file.")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _examine(op: Op, examples: int, seed: int) -> bool:
    """Check one op at many inputs and print a line about it."""
    rng = np.random.default_rng(seed)
    kinks = 0
    for _ in range(examples):
        try:
            check_op(op, RandomDraw(rng))
        except Kink:
            kinks += 1
        except TinygenError as error:
            print(f"{op.name}: WRONG. {error}")
            return False
    if kinks == examples:
        print(f"{op.name}: UNCHECKED. All {examples} points lay at a kink; describe inputs away from it.")
        return False
    note = f", {kinks} more rejected at kinks" if kinks else ""
    print(f"{op.name}: first and second derivatives agree with finite differences at {examples - kinks} inputs{note}.")
    return True


if __name__ == "__main__":
    sys.exit(main())
