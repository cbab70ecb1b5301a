"""The learning path as a page, README.md of this folder: what each demo measured when it last ran in full.

`python -m demos --all` brings it up to date; `python -m demos.learning_path FOLDER ...` takes over what complete runs
have left in those folders (such as out/gmm, or out for all in it) without running anything. The figures themselves are
kept in results/, a copy of each demo's metrics.json, and the pictures in pictures/.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from demos.catalogue import PLANNED, Entry, catalogue
from demos.report import in_words
from tinygen.errors import InputError, TinygenError
from tinygen.files import atomic, make_folder, write_json, write_text

PICTURES = (".gif", ".png")


class Result(NamedTuple):
    """What a run of a demo left: its metrics.json, and its pictures by the names that the demo gave them."""

    report: dict[str, Any]
    pictures: dict[str, Path]


def in_folder(folder: Path, entry: Entry) -> Result | None:
    """What a run left in its folder; None if there is no metrics.json of that demo."""
    file = folder / "metrics.json"
    report = _read(file)
    if report is None or report.get("demo") != entry.name:
        return None
    report.setdefault("date", date.fromtimestamp(file.stat().st_mtime).isoformat())
    return Result(report, {path.name: path for path in sorted(folder.iterdir()) if path.suffix in PICTURES})


def last(entry: Entry) -> Result | None:
    """What was kept of the last complete run."""
    folder, start = entry.path.parent, f"{entry.name}_"
    report = _read(folder / "results" / f"{entry.name}.json")
    pictures = sorted(path for path in folder.glob(f"pictures/{start}*") if path.suffix in PICTURES)
    return report and Result(report, {path.name.removeprefix(start): path for path in pictures})


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it, then run the demo again.") from error


def keep(entry: Entry, result: Result) -> bool:
    """Replaces what was kept of the demo, if the run was complete; whether it was."""
    report, settings = result.report, result.report["settings"]
    short = settings["quick"] or settings["steps"] != entry.demo.steps or report["out_of_time"]
    if short or settings["data"] not in (None, *entry.demo.datasets[:1]):
        return False
    folder = entry.path.parent
    results, pictures = make_folder(folder / "results"), make_folder(folder / "pictures")
    for stale in pictures.glob(f"{entry.name}_*"):
        stale.unlink()
    for name, path in result.pictures.items():
        with atomic(pictures / f"{entry.name}_{name}") as temporary:
            shutil.copyfile(path, temporary)
    write_json(results / f"{entry.name}.json", report)
    return True


# -- the page --------------------------------------------------------------------------------------------------------

HEAD = f"""\
# The learning path

One demo per row, in reading order: each is one file that trains, measures and draws one idea. `python -m demos` lists
them, `python -m demos NAME` runs one. A figure is the mean over the seeds with its standard deviation, followed by the
bar that was set for it before; where that was missed, it says so. This page is written by `python -m demos --all`, from
what each demo measures.

| no. | demo, data, minutes | picture{34 * "&nbsp;"} | figure reached, and bar{50 * "&nbsp;"} |
|---|---|---|---|
"""  # the spaces keep the columns of pictures and figures wide


def page(entries: Sequence[Entry]) -> str:
    """The page, in Markdown: a row for each demo, and one for each that is planned."""
    rows = {number: f"| {number} | {name}<br>{idea} |  | planned |" for number, (name, idea) in PLANNED.items()}
    rows |= {entry.demo.number: _row(entry, last(entry)) for entry in entries}
    return HEAD + "\n".join(rows[number] for number in sorted(rows)) + "\n"


def _row(entry: Entry, result: Result | None) -> str:
    about = [f"[{entry.name}]({entry.path.name})", entry.idea, f"Data: {entry.demo.data}."]
    figures, picture = ["not measured yet"], ""
    if result is not None:
        about.append(f"Minutes a seed: {took(result.report)}.")
        figures, face = headlines(result.report), representative(entry, result)
        picture = f'<img src="pictures/{entry.name}_{face}" alt="{face}" width="240">' if face else ""
    return f"| {entry.demo.number} | {_cell(about)} | {picture} | {_cell(figures)} |"


def _cell(lines: Sequence[str]) -> str:
    return "<br>".join(lines).replace("|", "\\|")


def representative(entry: Entry, result: Result) -> str | None:
    """The picture that stands for the demo: the one it names, or else the first."""
    return entry.demo.picture if entry.demo.picture in result.pictures else next(iter(result.pictures), None)


def headlines(report: dict[str, Any]) -> list[str]:
    """The metrics that have a bar, in words; all of them if none has."""
    metrics = report["metrics"]
    rows = in_words(metrics)
    told = lambda name, met: "" if all(metrics[name]["met"]) else "; missed" if met == "no" else f"; met by {met}"
    held = [f"{name}: {value} (bar {bar}{told(name, met)})" for name, value, _, bar, met in rows if bar]
    beside = lambda reference: f" ({reference})" if reference else ""
    return held or [f"{name}: {value}{beside(reference)}" for name, value, reference, *_ in rows]


def took(report: dict[str, Any]) -> str:
    """Minutes a seed, on the clock and of the processor, when, and on what machine."""
    count, machine, day = len(report["seeds"]), report["machine"], date.fromisoformat(report["date"])
    minutes = f"{report['seconds'] / 60 / count:.1f}"
    if "cpu_seconds" in report:
        minutes += f" (of the processor: {report['cpu_seconds'] / 60 / count:.1f})"
    if any(report.get("steps_resumed", ())):
        minutes = "not known, as it was resumed"
    seeds = f"{count} seed{'s' * (count > 1)}"
    return f"{minutes}; {seeds}, {day.day} {day:%B %Y}, {machine['processor']}, {machine['cores']} cores"


def update(entries: Sequence[Entry], folders: Sequence[Path]) -> list[str]:
    """Keeps what complete runs left in `folders`, rewrites the page; the names of the demos that had one."""
    kept = []
    for folder in folders:
        for entry in entries:
            result = in_folder(folder, entry) or in_folder(folder / entry.name, entry)
            if result is not None and keep(entry, result):
                kept.append(entry.name)
    write_text(page_of(entries), page(entries))
    return kept


def page_of(entries: Sequence[Entry]) -> Path:
    """Where the page lies: beside the demos."""
    return entries[0].path.parent / "README.md"


def main() -> int:
    try:
        kept = update(catalogue(Path(__file__).parent), [Path(name) for name in sys.argv[1:]])
    except TinygenError as error:
        print(f"python -m demos.learning_path: {error}", file=sys.stderr)
        return 2
    print(f"The page is written; complete runs taken over: {', '.join(kept) or 'none'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
