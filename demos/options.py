"""The options of `python -m demos`, and what is said of those that cannot be meant."""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from demos.catalogue import Entry
from tinygen.errors import InputError


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is raised, for `main` to print, rather than printed with the usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}. See python -m demos --help.")


def _parser() -> _Parser:
    parser = _Parser("python -m demos", description="Trains, measures and draws one idea.", allow_abbrev=False)
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="the demo to run; without it, the list of them")
    add("--all", action="store_true", help="run every demo, in order")
    add("--steps", type=_integer(1), metavar="N", help="training steps (default: the demo's own number)")
    add("--seed", type=_integer(0, 2**64 - 1), metavar="N", help="seed of all randomness (default: 0)")
    add("--seeds", type=_integer(1), default=1, metavar="N", help="run N seeds from --seed on: mean and spread")
    add("--device", default="cpu", metavar="NAME", help="where to compute: cpu")
    add("--data", metavar="NAME", help="which data, where a demo has a choice")
    add("--out", type=_folder, metavar="FOLDER", help="where to write (default: out/NAME)")
    add("--quick", action="store_true", help="the same path in seconds; the results mean little")
    add("--resume", nargs="?", const="", metavar="FILE", help="go on from a checkpoint (default: OUT/checkpoint.npz)")
    add("--sample", type=_integer(1, 10**9), metavar="N", help="write N samples to samples.npz; with --resume, no more")
    add("--budget", type=_minutes, metavar="MINUTES", help="stop training after this time; schedules stay as they are")
    return parser


def parse(arguments: Sequence[str] | None, entries: Sequence[Entry]) -> argparse.Namespace:
    """The options. Raises InputError, with the nearest name where one is near, for anything that cannot be meant."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            raise InputError(f"One demo at a time: what is {word!r} after {options.name}? See python -m demos --help.")
        known = [string for action in parser._actions for string in action.option_strings]
        raise InputError(f"{word!r} is not an option.{_nearest(word, known)} See python -m demos --help.")
    if options.name is not None and options.all:
        raise InputError(f"Give either a demo ({options.name}) or --all, not both.")
    if options.name is None and not options.all and options != parser.parse_args([]):
        raise InputError("Options need a demo to go with: python -m demos NAME [options], or --all.")
    if options.resume and (options.all or options.seeds > 1):
        raise InputError("--resume FILE is for one demo and one seed; without FILE each goes on from its own.")
    if (options.seed or 0) + options.seeds > 2**64:
        raise InputError(f"Seeds lie below 2**64: there are no {options.seeds} of them from {options.seed} on.")
    if options.device == "cuda":
        raise InputError("--device cuda is not there yet: tinygen computes on the CPU so far. Run without it.")
    if options.device != "cpu":
        raise InputError(f"There is no device {options.device!r}. There is: cpu.")
    if options.name is not None:
        choose_data(find(options.name, entries), options.data)
    return options


def _integer(least: int, most: float = float("inf")):
    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            limits = f"of at least {least}" if most == float("inf") else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return value

    return integer


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it needs the name of a folder; '.' is this one")
    return Path(text)


def find(name: str, entries: Sequence[Entry]) -> Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    names = {str(entry.demo.number): entry.name for entry in entries}
    near = _nearest(names.get(name, name), list(names.values()))
    raise InputError(f"There is no demo {name!r}.{near} The list of them: python -m demos")


def choose_data(entry: Entry, name: str | None) -> str | None:
    choices = entry.demo.datasets
    if name is None:
        return choices[0] if choices else None
    if name not in choices:
        raise InputError(
            f"{entry.name} cannot train on {name!r}.{_nearest(name, choices)} --data takes: {', '.join(choices)}."
            if choices
            else f"{entry.name} trains on {entry.demo.data} and nothing else; run it without --data."
        )
    return name


def _nearest(name: str, names: Sequence[str]) -> str:
    """Words that suggest a near name, one spelt alike or one that begins with what was typed; or none."""
    word = name.lower()
    near = difflib.get_close_matches(word, names, n=1) or [other for other in names if word and other.startswith(word)]
    return f" Did you mean {near[0]}?" if near else ""
