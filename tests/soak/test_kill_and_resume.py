"""A training that is killed at any moment and resumed ends as if it had never been killed.

Run as a program, this file is the driver: it imports tinygen once and forks a process for each attempt, so that a
hundred trainings, killed some hundreds of times in all, take seconds. Each process trains a small network, which saves
a checkpoint every few steps; the driver kills it with SIGKILL after a random time, often in the middle of a write, and
starts another one, until one gets to the end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

STEPS = 120


def work(folder):
    """Trains to the end, from the checkpoint in `folder` if there is one."""
    from tinygen import data, nn, ops, optim
    from tinygen.random import Generator
    from tinygen.training import train

    rng = Generator(3)
    model = nn.Sequential(nn.Linear(2, 16, rng=rng), ops.silu, nn.Dropout(0.2, rng=rng), nn.Linear(16, 2, rng=rng))
    adam, ema = optim.Adam(model.parameters(), lr=1e-2, schedule=optim.cosine(STEPS)), optim.EMA(model)
    batches = data.Batches(data.eight_gaussians().sample(50, rng), size=8, rng=rng)

    def step(i, rng):
        loss = ops.mean(ops.square(model(next(batches) + rng.normal((8, 2)))))
        loss.backward()
        adam.step()
        adam.zero_grad()
        ema.update()
        return loss

    state = {"model": model, "adam": adam, "ema": ema, "batches": batches}
    checkpoint, log = folder / "checkpoint.npz", folder / "log.jsonl"
    options = {"read_every": 5, "save_every_steps": 5, "progress": False}
    resume = checkpoint if checkpoint.exists() else None
    train(step, STEPS, rng, state=state, log=log, checkpoint=checkpoint, resume=resume, **options)


def end(folder):
    """What a training left: all of the checkpoint and all of the log, except for the seconds it took."""
    from tinygen.checkpoint import Checkpoint

    checkpoint = vars(Checkpoint.read(folder / "checkpoint.npz"))
    checkpoint |= {"lines": checkpoint["lines"][:, 0], "seconds": None}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return checkpoint, [{**line, "seconds": None} for line in log]


def attempt(folder, seconds):
    """Trains in a process of its own that is killed after `seconds`; whether it got to the end before."""
    child = os.fork()
    if not child:
        try:
            work(folder)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    deadline = time.perf_counter() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.perf_counter() < deadline:
        time.sleep(0.001)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    if os.WIFEXITED(ended[1]) and os.WEXITSTATUS(ended[1]):
        raise SystemExit("a training ended in an error")
    return os.WIFEXITED(ended[1])


def drive(base, trainings):
    """Kills trainings at random moments, each up to four times, until `trainings` of them got to the end after all;
    prints how many ended differently from one that was left alone."""
    for name in ("warm", "whole"):                                           # whatever is compiled is compiled here
        start = time.perf_counter()
        (base / name).mkdir()
        work(base / name)
    expected, took = end(base / "whole"), time.perf_counter() - start
    told = {"trainings": 0, "kills": 0, "kills while writing": 0, "differ": 0}
    chance = random.Random(0)
    while told["trainings"] < trainings:
        folder = Path(tempfile.mkdtemp(dir=base))
        kills = 0
        while not attempt(folder, 600 if kills == 4 else chance.uniform(0, took)):
            kills += 1
            told["kills while writing"] += any(folder.glob(".checkpoint.*"))
        if not kills:                                                        # it got to the end before its time
            continue
        told["trainings"] += 1
        told["kills"] += kills
        try:
            np.testing.assert_equal(end(folder), expected)
            np.testing.assert_equal(" ".join(sorted(os.listdir(folder))), "checkpoint.npz log.jsonl")
        except AssertionError as error:
            told["differ"] += 1
            print(error, file=sys.stderr)
    print(json.dumps(told))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has neither fork nor SIGKILL")
@pytest.mark.parametrize("trainings", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_trainings_killed_at_random_moments_all_resume_to_the_identical_end(tmp_path, trainings):
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(tmp_path), str(trainings)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    print(told)
    assert told["differ"] == 0, ran.stderr
    assert told["kills"] >= told["trainings"] == trainings


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]))
