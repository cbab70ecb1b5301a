"""The runner, over small demos written for the purpose: options, errors in words, tables and files."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demos.catalogue import catalogue
from demos.report import _spread
from demos.run import Metric
from demos.runner import main
from tinygen.checkpoint import Checkpoint
from tinygen.errors import InputError

ROOT = Path(__file__).parents[2]

MEAN = '''"""The mean of a Gaussian, by gradient descent.

The rest of the chapter.
"""
from demos.runner import Demo, Run
from tinygen.files import write_text

DEMO = Demo(number=2, data="a Gaussian", minutes=0.1, steps=300, quick_steps=20)


class Model:
    mean = 5.0

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]


def main(run: Run) -> None:
    model = Model()

    def step(i, rng):
        model.mean -= 0.05 * (model.mean - float(rng.normal(8).mean()))
        return model.mean**2

    run.train(step, {"model": model})
    if run.save_samples(lambda n: model.mean + run.rng.normal((n, 1)), picture=lambda x: write_text(run.path("x"), "")):
        return
    run.metric("error", abs(model.mean), reference=0.05, reference_name="expected", at_most=0.5)
    run.save_samples(lambda n: model.mean + run.rng.normal((n, 1)))
    run.metric("draw", float(run.rng.normal(())))
    if run.draws:
        write_text(run.path("picture.txt"), "a picture")
'''

FAILS = '''"""A demo that is given bad data."""
from demos.runner import Demo, Run
from tinygen.errors import InputError

DEMO = Demo(number=1, data="nothing", minutes=2.5, steps=10, quick_steps=1, datasets=("small", "full"))


def main(run: Run) -> None:
    raise InputError("digits: 3 pixels of image 7 are NaN.")
'''


@pytest.fixture
def folder(tmp_path):
    """A folder of demos, and beside it the working directory."""
    folder = tmp_path / "chapters"
    folder.mkdir()
    (folder / "mean.py").write_text(MEAN)
    (folder / "fails.py").write_text(FAILS)
    (folder / "no_demo.py").write_text("raise SystemExit('imported')\n")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capfd):
    """Runs a command line; its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = main([str(a) for a in arguments], folder)
        return status, *capfd.readouterr()

    return run


def start(folder, *arguments, **options):
    """The runner in a process of its own, which heeds Ctrl-C even if this one was started to ignore it."""
    code = "import signal, sys; from pathlib import Path; from demos.runner import main\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"sys.exit(main(None, Path({str(folder)!r})))"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder.parent, **options}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, **options)


def test_the_list_shows_number_name_data_minutes_and_idea_in_order(run):
    status, out, err = run()
    rows = [line.split() for line in out.splitlines()]
    assert status == 0 and not err and [row[:2] for row in rows[2:4]] == [["1", "fails"], ["2", "mean"]]
    assert "a Gaussian" in out and "2.5" in out and "The mean of a Gaussian, by gradient descent." in out


def test_listing_imports_neither_a_demo_nor_anything_heavy(folder):
    code = f"import sys; from pathlib import Path; from demos.runner import main; main([], Path({str(folder)!r}))"
    code += "; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"demos.mean", "numba", "scipy", "matplotlib", "tqdm"} & set(ran.stdout.split())


def test_a_run_leaves_its_table_metrics_log_and_samples(run, tmp_path):
    status, out, err = run("mean", "--seed", 4, "--sample", 7)
    assert status == 0 and "loss" in err                                             # the bar
    row = next(line for line in out.splitlines() if line.startswith("error")).split()
    assert row[2:] == ["0.05", "expected", "<=", "0.5", "yes"] and float(row[1]) < 0.5
    files = sorted(path.name for path in (tmp_path / "out" / "mean").iterdir())
    assert files == ["checkpoint.npz", "log.jsonl", "metrics.json", "picture.txt", "samples.npz"]
    assert all(file in out for file in files)
    report = json.loads((tmp_path / "out" / "mean" / "metrics.json").read_text())
    assert report["settings"]["seed"] == 4 and report["settings"]["steps"] == report["steps_done"][0] == 300
    assert report["metrics"]["error"]["met"] == [True] and report["versions"]["numpy"] == np.__version__
    assert np.load(tmp_path / "out" / "mean" / "samples.npz")["samples"].shape == (7, 1)
    assert sum(1 for _ in open(tmp_path / "out" / "mean" / "log.jsonl")) == 15


def test_the_same_seed_measures_the_same(run, tmp_path):
    for out in ("a", "b"):
        assert run("mean", "--out", out, "--steps", 30)[0] == 0
    a, b = (json.loads((tmp_path / out / "metrics.json").read_text())["metrics"] for out in ("a", "b"))
    assert a == b


def test_sampling_as_well_changes_nothing_that_is_measured(run, tmp_path):
    for out, more in (("a", ()), ("b", ("--sample", 2345))):
        assert run("mean", "--out", out, "--steps", 5, *more)[0] == 0
    a, b = (json.loads((tmp_path / out / "metrics.json").read_text())["metrics"] for out in ("a", "b"))
    assert a == b and np.load(tmp_path / "b" / "samples.npz")["samples"].shape == (2345, 1)


def test_several_seeds_give_mean_and_spread_and_pictures_from_the_first_alone(run, tmp_path):
    _, out, _ = run("mean", "--seeds", 3, "--seed", 5, "--out", tmp_path / "o")
    error = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]["error"]
    assert len(set(error["values"])) == 3 and np.isclose(error["std"], np.std(error["values"], ddof=1))
    assert np.isclose(error["mean"], np.mean(error["values"])) and "±" in out and "3 of 3" in out
    assert [path.parent.name for path in (tmp_path / "o").rglob("picture.txt")] == ["o"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir() if path.is_dir()) == ["seed_6", "seed_7"]


def test_quick_takes_the_quick_steps_and_says_that_bars_are_for_full_runs(run):
    _, out, _ = run("mean", "--quick")
    assert "for 20 steps" in out and "A short run" in out and out.split("error")[1].split()[5] == "no"


def test_a_budget_ends_a_run_early_and_says_so(run):
    _, out, _ = run("mean", "--steps", 10**9, "--budget", "0.001")
    assert "The budget ended training early" in out


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.5], "0.5"), ([8, 8], "8 ± 0"), ([1.0, 2.0], "1.50 ± 0.71"), ([99.1, 99.2, 99.0], "99.10 ± 0.10")]
    + [([0.029, 0.02902], "0.02901 ± 0.00001"), ([-1200, 1200], "0 ± 1697"), ([1.0, float("nan")], "nan ± nan")]
    + [([1e-15, 3e-15], "2e-15 ± 1.4e-15")],
)
def test_a_figure_has_the_digits_that_its_spread_allows(values, words):
    assert _spread(values) == words


def test_a_metric_is_met_between_its_bars_and_nan_meets_none():
    met = [Metric("share", x, at_least=0.9, at_most=0.99).met for x in (0.8, 0.9, 0.99, 1.0)]
    assert met == [False, True, True, False]
    assert Metric("share", float("nan"), at_most=1).met is False and Metric("share", 1.0).met is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["maen"], "There is no demo 'maen'. Did you mean mean?"),
        (["zzz"], "There is no demo 'zzz'. The list of them"),
        (["mean", "--step", "5"], "'--step' is not an option. Did you mean --steps?"),
        (["mean", "--sede=5"], "'--sede' is not an option. Did you mean --seed?"),
        (["MEA"], "There is no demo 'MEA'. Did you mean mean?"),
        (["2"], "There is no demo '2'. Did you mean mean?"),
        (["mean", "extra"], "One demo at a time: what is 'extra' after mean?"),
        (["--quick"], "Options need a demo to go with"),
        (["mean", "--all"], "not both"),
        (["mean", "--steps", "-3"], "--steps: '-3' is not a whole number of at least 1"),
        (["mean", "--steps", "many"], "--steps: 'many' is not a whole number"),
        (["mean", "--steps"], "--steps: expected one argument"),
        (["mean", "--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
        (["mean", "--seed", str(2**64 - 1), "--seeds", "2"], "there are no 2 of them from 18446744073709551615 on"),
        (["mean", "--out", ""], "--out: it needs the name of a folder"),
        (["mean", "--sample", str(10**19)], "--sample: '10000000000000000000' is not a whole number from 1 to"),
        (["mean", "--seeds", "0"], "--seeds: '0' is not a whole number of at least 1"),
        (["mean", "--sample", "1.5"], "--sample: '1.5' is not"),
        (["mean", "--budget", "nan"], "--budget: 'nan' is not a number of minutes above 0"),
        (["mean", "--device", "cuda"], "--device cuda is not there yet"),
        (["mean", "--device", "tpu"], "no device 'tpu'"),
        (["mean", "--resume"], "There is no checkpoint out/mean/checkpoint.npz"),
        (["mean", "--data", "full"], "mean trains on a Gaussian and nothing else"),
        (["fails", "--data", "ful"], "Did you mean full? --data takes: small, full."),
        (["fails"], "digits: 3 pixels of image 7 are NaN."),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_paragraph(run, arguments, words):
    status, _, err = run(*arguments)
    assert status == 2 and words in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(run, tmp_path):
    (tmp_path / "file").touch()
    status, out, err = run("mean", "--out", tmp_path / "file" / "deeper")
    assert status == 2 and "Cannot write" in err and len(err.strip().splitlines()) == 1 and out == ""


def test_too_little_memory_is_told_in_one_paragraph(run, folder):
    (folder / "fails.py").write_text(FAILS.replace('InputError("', 'MemoryError("Unable to allocate 2 TiB. '))
    status, _, err = run("fails")
    assert status == 2 and "Out of memory. Unable to allocate 2 TiB." in err and len(err.splitlines()) == 1


def test_all_runs_every_demo_and_one_that_fails_does_not_stop_the_rest(run, tmp_path):
    status, out, err = run("--all", "--quick", "--out", "o")
    assert status == 2 and "fails: digits: 3 pixels" in err and (tmp_path / "o" / "mean" / "metrics.json").exists()


def test_a_file_that_does_not_parse_or_declare_is_named_with_its_line(folder):
    (folder / "broken.py").write_text("x = 1\ndef main(:\n")
    with pytest.raises(InputError, match=r"broken\.py, line 2"):
        catalogue(folder)
    (folder / "broken.py").write_text("x = 1\nDEMO = Demo(number=x)\n")
    with pytest.raises(InputError, match=r"broken\.py, line 2"):
        catalogue(folder)


def test_ctrl_c_ends_a_run_with_one_sentence_and_status_130(folder):
    first_line = "    def step(i, rng):\n"
    talking = first_line + "        i == 9 and print('ninth step', flush=True)\n"
    (folder / "mean.py").write_text(MEAN.replace(first_line, talking))
    process = start(folder, "mean", "--steps", str(10**9), "--budget", "1")
    assert any("ninth step" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Stopped by Ctrl-C" in err and "Traceback" not in err


def test_the_command_line_ends_with_the_status_that_main_returns(folder):
    process = start(folder, "maen")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2 and "Did you mean mean?" in err


def test_the_demos_of_the_repository_are_numbered_once_and_say_what_they_are():
    entries = catalogue(ROOT / "demos")
    assert len({e.demo.number for e in entries}) == len(entries)
    for entry in entries:
        assert entry.idea != "no description" and 0 < entry.demo.quick_steps <= entry.demo.steps


# -- going on from a checkpoint ----------------------------------------------------------------------------------------


def left(folder):
    """What a run leaves that another run of the same settings must leave too."""
    report = json.loads((folder / "metrics.json").read_text())
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    state = Checkpoint.read(folder / "checkpoint.npz").state
    return state, report["metrics"], report["settings"]["seed"], [{**line, "seconds": 0} for line in lines]


def test_a_run_that_a_budget_ended_goes_on_to_the_same_end_and_takes_its_options_from_the_checkpoint(run, tmp_path):
    assert run("mean", "--steps", 90, "--seed", 4, "--out", "whole")[0] == 0
    assert "--resume goes on" in run("mean", "--steps", 90, "--seed", 4, "--budget", "1e-9")[1]
    status, out, err = run("mean", "--resume")
    assert status == 0 and "Goes on from out/mean/checkpoint.npz" in out and "1/90" in err
    np.testing.assert_equal(left(tmp_path / "out" / "mean"), left(tmp_path / "whole"))


def test_ctrl_c_saves_says_how_to_go_on_and_that_leads_to_the_same_end(run, folder, tmp_path):
    assert run("mean", "--steps", 90, "--out", "whole")[0] == 0
    first_line = "    def step(i, rng):\n"
    stopping = "        if i == 45 and not run.resume:\n            raise KeyboardInterrupt\n"
    (folder / "mean.py").write_text(MEAN.replace(first_line, first_line + stopping))
    status, _, err = run("mean", "--steps", 90, "--out", "o")
    assert status == 130 and "o/checkpoint.npz holds the first 40 steps" in err and "Traceback" not in err
    command = re.search(r"Go on with python -m demos (.*)", err)[1].split()
    assert command == ["mean", "--resume", "o/checkpoint.npz"] and run(*command)[0] == 0
    np.testing.assert_equal(left(tmp_path / "o"), left(tmp_path / "whole"))


def test_samples_of_a_complete_training_are_drawn_without_training_or_measuring(run, tmp_path):
    run("mean", "--steps", 30)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "mean").iterdir()}
    status, out, err = run("mean", "--sample", 64, "--resume", "out/mean/checkpoint.npz")
    assert status == 0 and "64 samples of it" in out and "metric" not in out and "loss" not in err
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "mean").iterdir()}
    assert after.items() >= before.items() and set(after) - set(before) == {"samples.npz", "x"}
    assert np.load(tmp_path / "out" / "mean" / "samples.npz")["samples"].shape == (64, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mean", "--steps", 60], "out/mean/checkpoint.npz is from --steps 30, not 60"),
        (["mean", "--seed", 0], "is from --seed 4, not 0"),
        (["mean", "--quick"], "is from --quick False, not True"),
        (["fails"], "out/mean/checkpoint.npz is a checkpoint of mean, not of fails"),
    ],
)
def test_other_settings_than_those_of_the_checkpoint_are_refused_by_name(run, arguments, words):
    run("mean", "--steps", 30, "--seed", 4)
    status, out, err = run(*arguments, "--resume", "out/mean/checkpoint.npz")
    assert status == 2 and words in err and len(err.strip().splitlines()) == 1 and not out


@pytest.mark.parametrize("wrong", [{"seed": "4"}, {"run_steps": 3.5}, {"quick": None}, {"data": [1]}, {"demo": None}])
def test_settings_that_no_demo_has_are_refused(run, tmp_path, wrong):
    run("mean", "--steps", 30)
    file = tmp_path / "out" / "mean" / "checkpoint.npz"
    checkpoint = Checkpoint.read(file)
    checkpoint.settings.update(wrong)
    checkpoint.write(file)
    status, _, err = run("mean", "--resume")
    assert status == 2 and "checkpoint.npz" in err and len(err.strip().splitlines()) == 1


def test_all_and_several_seeds_go_on_where_there_is_a_checkpoint(run, tmp_path):
    run("mean", "--seeds", 2, "--steps", 40)
    os.remove(tmp_path / "out" / "mean" / "seed_1" / "checkpoint.npz")
    status, out, err = run("mean", "--seeds", 2, "--resume")
    assert status == 0 and err.count("40/40") == 1 and len(re.findall("Seed", out)) == 2
    status, out, err = run("--all", "--resume")
    assert "fails: digits" in err and "40/40" not in err and "Goes on from out/mean" in out


TWO_PHASES = MEAN.replace(
    "    if run.save_samples",
    "    late = Model()\n"
    "    old, model = model, late\n"
    "    done = run.train(step, {'model': late}, name='second part', steps=40)\n"
    "    print('second part:', done.resumed, 'of', done.steps)\n"
    "    if run.save_samples",
)


def test_a_second_training_has_its_own_checkpoint_and_goes_on_only_after_a_complete_first(run, folder, tmp_path):
    (folder / "mean.py").write_text(TWO_PHASES)
    assert "second part: 0 of 40" in run("mean", "--steps", 30)[1]
    assert "second part: 40 of 40" in run("mean", "--resume")[1]
    assert (tmp_path / "out" / "mean" / "checkpoint_second_part.npz").exists()
    assert "second part: 0 of 1\n" in run("mean", "--steps", 30, "--budget", "1e-9")[1]
    assert "second part: 1 of 40" in run("mean", "--resume")[1]


def test_a_full_disk_ends_a_run_with_status_2_and_leaves_the_last_checkpoint(run, folder, tmp_path):
    run("mean", "--steps", 3000, "--budget", "1e-9")
    file = tmp_path / "out" / "mean" / "checkpoint.npz"
    saved, limit = file.read_bytes(), file.stat().st_size + 1000
    code = "import resource, sys; from pathlib import Path; from demos.runner import main\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    code += f"sys.exit(main(None, Path({str(folder)!r})))"
    command = [sys.executable, "-c", code, "mean", "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    told = ran.stderr.strip().splitlines()[-1]
    assert ran.returncode == 2 and "File too large" in told and "checkpoint.npz holds the first 1 steps" in told
    assert file.read_bytes() == saved and "Traceback" not in ran.stderr
