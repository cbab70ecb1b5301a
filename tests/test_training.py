"""The training loop: what it calls, records, and does when something goes wrong."""

import json
import time

import numpy as np
import pytest

from tinygen import ops
from tinygen.errors import InputError
from tinygen.files import OutputError
from tinygen.random import Generator
from tinygen.tensor import Parameter
from tinygen.training import TrainingError, train


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
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        quiet(lambda i, rng: 1.0, 5, log=tmp_path / "file" / "log.jsonl")
