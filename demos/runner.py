"""What every demo does alike: its options, its folder, its table, and its errors in words.

`python -m demos` lists the demos; `python -m demos NAME [options]` runs one, `python -m demos --all` all of them. A
demo is handed a `Run` and need not know of anything here.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demos import gallery, learning_path
from demos.catalogue import Demo, Entry, catalogue
from demos.options import choose_data, find, parse
from demos.report import metrics_table, table, write_metrics
from demos.run import Run
from tinygen import runtime
from tinygen.checkpoint import Checkpoint
from tinygen.errors import InputError, TinygenError
from tinygen.files import make_folder
from tinygen.training import Interrupted

__all__ = ["Demo", "Run", "main"]

BAD_INPUT, INTERRUPTED = 2, 130                                             # exit statuses
CHECKPOINT = "checkpoint.npz"
KEPT = ("run_steps", "quick", "data", "device")  # options that a checkpoint must agree in, beside the seed


def main(arguments: Sequence[str] | None = None, folder: Path = Path(__file__).parent) -> int:
    """Runs a command line (by default that of this process) over the demos in `folder`; the exit status."""
    try:
        entries = catalogue(folder)
        options = parse(arguments, entries)
        if options.all:
            return run_all(entries, options)
        if options.name is None:
            print(listing(entries))
            return 0
        run_demo(find(options.name, entries), options)
        return 0
    except TinygenError as error:
        print(f"python -m demos: {error}", file=sys.stderr)
        return BAD_INPUT
    except MemoryError as error:
        print(f"python -m demos: Out of memory. {error} Ask for less, or close other programs.", file=sys.stderr)
        return BAD_INPUT
    except Interrupted as error:
        again = "the same command and --resume"
        if options.seeds == 1 and not options.all:
            again = f"python -m demos {options.name} --resume {error.checkpoint}"
        print(f"\n{error} Go on with {again}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C; what had been written by then is whole and stays.", file=sys.stderr)
        return INTERRUPTED


def listing(entries: Sequence[Entry]) -> str:
    """The learning path as a table: number, name, data, minutes, idea."""
    rows = [("no.", "name", "trains on", "minutes", "idea")]
    rows += [(str(e.demo.number), e.name, e.demo.data, f"{e.demo.minutes:g}", e.idea) for e in entries]
    return f"{table(rows, right=(0, 3))}\n\nRun one: python -m demos NAME; its options: python -m demos --help"


def run_demo(entry: Entry, options: argparse.Namespace) -> list[Run]:
    """Runs one demo with each of its seeds, then prints its table and writes its metrics.json."""
    options = _completed(entry, options)
    out = make_folder(options.out)
    print(f"{entry.name}: {entry.idea}")
    print(f"Trains on {options.data or entry.demo.data} for {options.steps} steps; writes to {out}.", flush=True)
    if options.resume:
        print(f"Goes on from {options.resume}.", flush=True)
    start, cpu_start, runs = time.perf_counter(), time.process_time(), []
    chapter = entry.load()
    for seed in range(options.seed, options.seed + options.seeds):
        first = seed == options.seed
        if options.seeds > 1:
            print(f"Seed {seed} ({seed - options.seed + 1} of {options.seeds})", flush=True)
        folder = out if first else make_folder(out / f"seed_{seed}")
        resume = options.resume if first else folder / CHECKPOINT
        run = Run(
            seed=seed,
            steps=options.steps,
            out=folder,
            quick=options.quick,
            draws=first,
            data=options.data,
            device=options.device,
            budget_minutes=options.budget,
            sample=options.sample,
            resume=resume if options.resume and resume.exists() else None,
            settings={"demo": entry.name, "seed": seed, **{name: getattr(options, name) for name in KEPT}},
        )
        with runtime.tuned():
            chapter(run)
        runs.append(run)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    if runs[0].metrics or not runs[0].only_samples:
        names = ("steps", "seed", "seeds", "device", "data", "quick", "sample", "budget")
        write_metrics(entry, runs, {name: getattr(options, name) for name in names}, seconds, cpu_seconds)
        print("\n" + metrics_table(runs) + "\n", flush=True)
    print(closing_words(entry, runs, seconds), flush=True)
    return runs


def _completed(entry: Entry, options: argparse.Namespace) -> argparse.Namespace:
    """The options with what was not given filled in: from the checkpoint to go on from, or else from the demo.

    Raises InputError when the checkpoint is not there, is of another demo, or contradicts what was given.
    """
    full = argparse.Namespace(**vars(options))
    full.out = options.out or (Path(options.resume).parent if options.resume else Path("out") / entry.name)
    full.resume, saved = None, {}
    if options.resume is not None:
        full.resume = Path(options.resume) if options.resume else full.out / CHECKPOINT
        saved = _settings_in(full.resume, entry)
    for name in saved:
        option = name.removeprefix("run_")
        given = getattr(options, option)
        if given is not None and given is not False and given != saved[name]:
            raise InputError(f"{full.resume} is from --{option} {saved[name]}, not {given}; leave the option out.")
        setattr(full, option, saved[name])
    full.seed = full.seed or 0
    full.steps = full.steps or (entry.demo.quick_steps if full.quick else entry.demo.steps)
    full.data = choose_data(entry, full.data)
    full.run_steps = full.steps
    return full


def _settings_in(checkpoint: Path, entry: Entry) -> dict:
    """The options that a checkpoint of this demo was made with."""
    if not checkpoint.exists():
        raise InputError(
            f"There is no checkpoint {checkpoint} to go on from. Run {entry.name} without --resume first, or name "
            "another one: --resume FILE."
        )
    saved = Checkpoint.read(checkpoint).settings
    if saved.get("demo") != entry.name:
        raise InputError(f"{checkpoint} is a checkpoint of {saved.get('demo', 'no demo')}, not of {entry.name}.")
    kinds = {"seed": int, "run_steps": int, "quick": bool, "data": str | None}
    if not all(name in saved and isinstance(saved[name], kind) for name, kind in kinds.items()):
        raise InputError(f"{checkpoint} does not say which options it was made with: take another copy.")
    return {name: saved[name] for name in kinds}


def closing_words(entry: Entry, runs: Sequence[Run], seconds: float) -> str:
    """How far the table can be trusted, the files, and what to do next."""
    first, lines = runs[0], []
    if any(run.out_of_time for run in runs):
        lines.append("The budget ended training early: the bars are meant for a full run. --resume goes on from there.")
    elif first.only_samples:
        lines.append(f"Training was complete: {first.sample} samples of it, and nothing else.")
    elif first.quick or first.steps < entry.demo.steps:
        lines.append(f"A short run: the bars are meant for {entry.demo.steps} steps without --quick.")
    if first.sample is not None and first.out / "samples.npz" not in first.files:
        lines.append("This demo has nothing to sample: --sample wrote nothing.")
    names = sorted(str(path.relative_to(first.out)) for path in first.files if path.exists())
    others = "" if len(runs) == 1 else f"; beside them {', '.join(f'{run.out.name}/' for run in runs[1:])}"
    lines.append(f"{seconds:.0f} s. In {first.out}: {', '.join(names)}{others}.")
    chapter = Path(*entry.path.parts[-2:])
    lines.append(f"Next: look at the pictures beside {chapter}, change a line there, and run it again.")
    return "\n".join(lines)


def run_all(entries: Sequence[Entry], options: argparse.Namespace) -> int:
    """Every demo in order, each in a folder of its own; one that fails does not stop the rest. Then the gallery of what
    they left, and, unless the runs were quick, the page of the learning path."""
    status, base = 0, options.out or Path("out")
    for entry in entries:
        try:
            out = base / entry.name
            resume = None if options.resume is None or not (out / CHECKPOINT).exists() else ""
            run_demo(entry, argparse.Namespace(**{**vars(options), "out": out, "resume": resume}))
        except TinygenError as error:
            print(f"python -m demos: {entry.name}: {error}", file=sys.stderr)
            status = BAD_INPUT
    if not options.quick:
        kept = learning_path.update(entries, [base])
        print(f"{learning_path.page_of(entries)} shows the complete runs: {', '.join(kept) or 'there was none'}.")
    shown = [(entry, learning_path.in_folder(base / entry.name, entry)) for entry in entries]
    if not options.quick:
        shown = [(entry, result or learning_path.last(entry)) for entry, result in shown]
    page = gallery.write(base / "gallery", [(entry, result) for entry, result in shown if result])
    print(f"The gallery: open {page} in a browser.")
    return status
