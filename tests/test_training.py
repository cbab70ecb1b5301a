"""The training loop: what it calls, records, and does when something goes wrong."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import data, nn, ops, optim
from tinygen.checkpoint import Checkpoint
from tinygen.errors import InputError
from tinygen.files import OutputError
from tinygen.random import Generator
from tinygen.tensor import Parameter
from tinygen.training import Interrupted, TrainingError, accumulate, train


class Descent:
    """Gradient descent on (x - target)^2 / 2 with noise: the smallest thing that trains."""

    def __init__(self):
        self.x = np.full(1, 5.0)

    def state_dict(self):
        return {"x": self.x}

    def load_state_dict(self, state):
        self.x[...] = state["x"]

    def step(self, i, rng):
        self.x -= 0.1 * (self.x - 1 + 0.01 * rng.normal(1))
        return 0.5 * float(self.x[0] - 1) ** 2


def quiet(step, steps, seed=0, **options):
    return train(step, steps, Generator(seed), progress=False, **options)


@pytest.mark.parametrize("read_every", [1, 7, 1000])
def test_each_step_is_called_once_in_order_and_every_loss_is_kept(read_every):
    seen = []
    result = quiet(lambda i, rng: seen.append(i) or i / 2, 30, read_every=read_every)
    assert seen == list(range(30)) and np.array_equal(result.losses, np.arange(30) / 2)
    assert result.steps == 30 and not result.out_of_time


def test_training_descends_and_the_same_seed_gives_the_same_run():
    runs = [quiet(Descent().step, 100, seed=3) for _ in range(2)]
    assert np.array_equal(runs[0].losses, runs[1].losses) and runs[0].losses[-1] < 0.01 * runs[0].losses[0]


def test_the_log_holds_the_means_between_readings_as_json_lines(tmp_path):
    log = tmp_path / "new" / "log.jsonl"
    result = quiet(lambda i, rng: {"loss": np.float32(i), "kl": 2 * i}, 25, log=log, read_every=10)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["step"], line["loss"], line["kl"]) for line in lines] == [(10, 4.5, 9), (20, 14.5, 29), (25, 22, 44)]
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]
    assert np.array_equal(result.values["kl"], 2 * np.arange(25))


def test_a_budget_ends_training_early_and_says_so():
    result = quiet(lambda i, rng: time.sleep(0.002) or 1.0, 10_000, budget_minutes=0.05 / 60)
    assert 1 <= result.steps < 1000 and result.out_of_time and len(result.losses) == result.steps


def test_a_budget_that_is_too_small_still_allows_one_step():
    assert quiet(lambda i, rng: 1.0, 10, budget_minutes=0).steps == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(bad):
    with pytest.raises(TrainingError, match=f"The loss is {bad} at step 13"):
        quiet(lambda i, rng: bad if i >= 13 else 1.0, 50, read_every=5)


def test_the_steps_before_a_lost_loss_run_again_from_the_same_state_and_the_same_draws():
    descent, trace = Descent(), {}

    def step(i, rng):
        loss = descent.step(i, rng)
        trace.setdefault(i, []).append(loss)
        return np.nan if i == 13 else loss

    with pytest.raises(TrainingError, match="from step 10 "):
        quiet(step, 50, state={"model": descent}, read_every=5)
    assert all(len(trace[i]) == 1 for i in range(10))
    assert all(len(trace[i]) == 2 and trace[i][0] == trace[i][1] for i in range(10, 14))


def test_the_op_in_which_a_nan_began_is_named_though_the_model_is_lost_by_then():
    x = Parameter(np.ones(3, np.float32))

    class Model:
        def state_dict(self):
            return {"x": x.data}

        def load_state_dict(self, state):
            x.data = state["x"].copy()

    def step(i, rng):
        x.grad = None
        loss = ops.sum(ops.log(x - i / 8))                                    # the logarithm of 0 at step 8
        loss.backward()
        x.data = x.data - 0 * x.grad                                         # and NaN in the parameters from then on
        return loss

    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="at step 8.*log"):
        quiet(step, 20, state={"model": Model()})


def test_the_bar_stands_before_the_first_step_and_shows_the_loss(capsys):
    seen = []
    train(lambda i, rng: seen.append(capsys.readouterr().err) or 0.25, 3, Generator(0), name="a model", progress=True)
    assert "a model:   0%" in seen[0] and "0/3" in seen[0]
    assert "loss 0.25" in capsys.readouterr().err


def test_interrupting_training_closes_the_log_and_passes_the_interrupt_on(tmp_path):
    def step(i, rng):
        if i == 25:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        quiet(step, 100, log=tmp_path / "log.jsonl", read_every=10)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_bad_arguments_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        quiet(lambda i, rng: 1.0, 0)
    with pytest.raises(InputError, match=r"loss of shape \(2,\)"):
        quiet(lambda i, rng: np.ones(2), 5)
    with pytest.raises(InputError, match="returned loss, kl after loss"):
        quiet(lambda i, rng: {"loss": 1.0} if i < 3 else {"loss": 1.0, "kl": 2.0}, 5)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        quiet(lambda i, rng: 1.0, 5, log=tmp_path / "file" / "log.jsonl")


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """A network with everything that is hard to resume: dropout, a buffer, a generator of its own."""

    def __init__(self, rng, width=4):
        self.net = nn.MLP([3, width, 1], rng=rng)
        self.dropout = nn.Dropout(0.3, rng=rng)
        self.calls, self.rng = nn.Buffer(np.array(0)), rng.fork()

    def forward(self, x):
        self.calls.data = self.calls.data + 1
        return self.net(self.dropout(x) + 0.1 * self.rng.normal(x.shape))


def study(steps=60, stop=None, seed=0, model=None, lr=1e-2, **options):
    """A training with everything that may have to be saved; Ctrl-C comes in the middle of step `stop`."""
    rng = Generator(seed)
    model = model or Noisy(rng)
    adam = optim.Adam(model.parameters(), lr=lr, schedule=optim.cosine(steps))
    ema, batches = optim.EMA(model), data.Batches(np.eye(10, 3, dtype=np.float32), size=4, rng=rng)

    def step(i, rng):
        loss = ops.mean(ops.square(model(next(batches) + rng.normal((4, 3))) - 1))
        loss.backward()
        adam.step()
        if i == stop:
            raise KeyboardInterrupt
        adam.zero_grad()
        ema.update()
        return {"loss": loss, "half": loss / 2}

    state = {"model": model, "adam": adam, "ema": ema, "batches": batches}
    return train(step, steps, rng, state=state, **{"read_every": 7, "progress": False, **options})


def paths(folder):
    return {"checkpoint": folder / "c.npz", "log": folder / "log.jsonl"}


def end_state(folder):
    """All that training leaves, but for the seconds it took."""
    checkpoint = vars(Checkpoint.read(folder / "c.npz"))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = {name: value for name, value in checkpoint.items() if name not in ("seconds", "lines")}
    return kept, checkpoint["lines"][:, 0], [{**line, "seconds": 0} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return study(**paths(folder)).values, end_state(folder)


@settings(max_examples=15)
@given(stops=st.lists(st.integers(0, 59), max_size=3), every=st.sampled_from([1, 7, 10, 1000]))
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(stops, every, undisturbed, tmp_path_factory):
    folder, values = tmp_path_factory.mktemp("stopped"), undisturbed[0]
    resume = None
    for stop in (*stops, None):
        try:
            result = study(stop=stop, save_every_steps=every, resume=resume, **paths(folder))
        except KeyboardInterrupt as interrupt:
            assert isinstance(interrupt, Interrupted) == (folder / "c.npz").exists()
        resume = folder / "c.npz" if (folder / "c.npz").exists() else None
    np.testing.assert_array_equal(result.losses, values["loss"])
    np.testing.assert_array_equal(result.values["half"], values["half"])
    np.testing.assert_equal(end_state(folder), undisturbed[1])


def test_a_training_that_a_budget_ended_goes_on_as_if_it_had_not_been(undisturbed, tmp_path):
    result = study(budget_minutes=0, **paths(tmp_path))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert result.steps == 1 and result.out_of_time and [json.loads(line)["step"] for line in lines] == [1]
    for steps in (2, 3, 60):
        minutes = None if steps == 60 else 0
        result = study(budget_minutes=minutes, resume=tmp_path / "c.npz", **paths(tmp_path))
        assert (result.steps, result.resumed) == (steps, steps - 1 if minutes == 0 else 3)
    np.testing.assert_equal(end_state(tmp_path), undisturbed[1])


def test_ctrl_c_says_where_to_go_on_from_and_before_anything_is_done_it_is_an_ordinary_one(tmp_path):
    with pytest.raises(Interrupted, match=r"Stopped by Ctrl-C; .*c.npz holds the first 21 steps, to go on from"):
        study(stop=25, **paths(tmp_path))
    with pytest.raises(KeyboardInterrupt) as caught:
        study(stop=3, checkpoint=tmp_path / "new.npz")
    assert type(caught.value) is KeyboardInterrupt and not (tmp_path / "new.npz").exists()


def test_a_complete_training_is_loaded_without_a_step_and_without_writing(tmp_path, undisturbed):
    study(**paths(tmp_path))
    model, before = Noisy(Generator(9)), {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = study(stop=0, model=model, resume=tmp_path / "c.npz", **paths(tmp_path))
    assert (result.steps, result.resumed, result.out_of_time) == (60, 60, False)
    np.testing.assert_array_equal(result.losses, undisturbed[0]["loss"])
    assert model.calls.item() == 60 and before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_checkpoints_are_written_as_often_as_asked(tmp_path):
    held = []

    def step(i, rng):
        held.append(Checkpoint.read(tmp_path / "c.npz").step if (tmp_path / "c.npz").exists() else 0)
        return time.sleep(0.002) or 1.0

    quiet(step, 20, checkpoint=tmp_path / "c.npz", save_every_steps=6, read_every=2)
    assert held == [0] * 6 + [6] * 6 + [12] * 6 + [18] * 2
    held.clear()
    os.unlink(tmp_path / "c.npz")
    quiet(step, 20, checkpoint=tmp_path / "c.npz", save_every=0.001, read_every=5)
    assert held == [0] * 5 + [5] * 5 + [10] * 5 + [15] * 5
    held.clear()
    os.unlink(tmp_path / "c.npz")
    quiet(step, 20, checkpoint=tmp_path / "c.npz")
    assert held == [0] * 20 and Checkpoint.read(tmp_path / "c.npz").complete


def test_the_bar_begins_where_training_goes_on(tmp_path, capsys):
    with pytest.raises(Interrupted):
        study(stop=25, **paths(tmp_path))
    seen = []
    study(resume=tmp_path / "c.npz", progress=True, **paths(tmp_path))
    seen = capsys.readouterr().err
    assert "35%" in seen and "21/60" in seen and "60/60" in seen


def test_weights_that_are_lost_are_not_saved_over_good_ones(tmp_path):
    """The loss of the step that spoils the weights is still finite: only the next one tells."""
    weights = nn.Sequential(nn.Linear(1, 1, rng=Generator(0)))

    def step(i, rng):
        weights[0].bias.data = [np.nan if i >= spoilt else i]
        return float(weights[0].bias.data[0]) if i != spoilt else 1.0

    options = {"state": {"model": weights}, "checkpoint": tmp_path / "c.npz", "read_every": 1, "save_every_steps": 1}
    spoilt = 13
    with pytest.raises(TrainingError, match="at step 14"):
        quiet(step, 50, **options)
    assert Checkpoint.read(tmp_path / "c.npz").step == 13
    with pytest.raises(TrainingError, match="Step 13 left weights that are NaN.*c.npz holds the first 13 steps"):
        quiet(step, 14, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 61}, "c.npz is the checkpoint of another training: steps is 61 here and 60 there"),
        ({"read_every": 8}, "read_every is 8 here and 7 there"),
        ({"name": "critic"}, "name is 'critic' here and 'training' there"),
        ({"settings": {"seed": 3, "data": "b"}}, "seed is 3 here and 2 there; data is 'b' here and 'a' there"),
        ({"settings": {"seed": 2}}, "data is 'not set' here and 'a' there"),
        ({"model": nn.Linear(3, 1, rng=Generator(0))}, "batches, model.rng, while that of rng, model, adam, ema,"),
        ({"model": Noisy(Generator(0), width=5)}, r'fit model: Noisy.*"net.0.weight" has shape \(3, 4\) where'),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path, options, words):
    same = {"seed": 2, "data": "a"}
    with pytest.raises(Interrupted):
        study(stop=25, settings=same, **paths(tmp_path))
    before = (tmp_path / "c.npz").read_bytes()
    with pytest.raises(InputError, match=words):
        study(**{"settings": same, "resume": tmp_path / "c.npz", **paths(tmp_path), **options})
    assert (tmp_path / "c.npz").read_bytes() == before


def test_a_state_that_does_not_fit_leaves_everything_as_it_was(tmp_path):
    good, bad, rng = Descent(), Descent(), Generator(0)
    state, bad.x = {"good": good, "bad": bad}, np.zeros(2)
    train(lambda i, rng: good.step(i, rng), 5, rng, state=state, checkpoint=tmp_path / "c.npz", progress=False)
    good.x[...], bad.x, rng = 7, np.zeros(3), Generator(0)
    with pytest.raises(InputError, match="c.npz does not fit bad: ValueError"):
        train(good.step, 5, rng, state=state, resume=tmp_path / "c.npz", progress=False)
    assert good.x[0] == 7 and rng.state_dict() == Generator(0).state_dict()
    with pytest.raises(InputError, match="holds the state of rng, good, bad, while that of rng, good is needed"):
        train(good.step, 5, rng, state={"good": good}, resume=tmp_path / "c.npz", progress=False)
    with pytest.raises(InputError, match="nowhere.npz cannot be read"):
        quiet(good.step, 5, resume=tmp_path / "nowhere.npz")


FULL_DISK = """
import resource, sys, numpy as np
from tinygen.files import OutputError
from tinygen.random import Generator
from tinygen.training import train
where, limit, checkpoint = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def step(i, rng):
    if i == 40:  # from here on no file may grow beyond the limit
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return {"loss": 1.0, "long name " * 20: 2.0}

try:
    train(step, 1000, Generator(0), log=where, checkpoint=checkpoint, save_every_steps=20, progress=False)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [2000, 100])
def test_a_full_disk_stops_training_and_says_what_is_saved(tmp_path, limit):
    """The first limit lets the log through and stops the checkpoint; the second stops both."""
    files = paths(tmp_path)
    command = [sys.executable, "-c", FULL_DISK, str(files["log"]), str(limit), str(files["checkpoint"])]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "Training stopped after step 60. " in ran.stdout and "c.npz holds the first 40 steps" in ran.stdout
    assert "File too large" in ran.stdout and len(ran.stdout.splitlines()) == 1 and not ran.stderr
    assert Checkpoint.read(files["checkpoint"]).step == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "log.jsonl"]


def test_temporary_files_that_a_killed_training_left_are_removed(tmp_path):
    (tmp_path / ".c.12345.npz").touch()
    (tmp_path / ".log.12345.jsonl").touch()
    study(**paths(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "log.jsonl"]


# -- gradient accumulation ---------------------------------------------------------------------------------------------


@given(parts=st.integers(1, 6), seed=st.integers(0, 99))
def test_small_batches_accumulate_to_the_gradients_of_a_large_one(parts, seed):
    model = nn.MLP([3, 5, 2], ops.tanh, rng=Generator(seed)).to(dtype=np.float64)
    x = Generator(seed).normal((parts * 4, 3), np.float64)
    objective = lambda x: ops.mean(ops.square(model(x) - 1))
    whole = objective(x)
    whole.backward()
    expected = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    loss = accumulate(lambda j: objective(x[4 * j : 4 * j + 4]), parts)
    np.testing.assert_allclose(loss.item(), whole.item(), rtol=1e-12)
    assert not loss.requires_grad
    for p, gradient in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(p.grad, gradient, rtol=1e-9, atol=1e-12)


def test_no_parts_are_refused():
    with pytest.raises(InputError, match="parts must be at least 1"):
        accumulate(lambda j: None, 0)
