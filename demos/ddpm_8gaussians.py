"""Denoising diffusion on eight Gaussians, from noise to data, beside the exact density at every step.

How can a network that only ever answers "what noise was added here?" draw new data?

Destroying data is easy: add a little Gaussian noise a hundred times, and eight separate blobs melt into one round
cloud. Ho et al. (2020) learn to play that film backwards. Each small step back is nearly Gaussian, and its mean follows
from the noise that is in the point at that moment, so predicting noise is all that has to be learned.

With eight Gaussians nothing needs to be believed. Diffused Gaussians are Gaussians, so the exact density p_t is known
at every step, and with it the best possible prediction, eps* = -sqrt(1 - abar_t) grad log p_t(x_t). The network is held
against that, the samples against fresh data, and the whole film against the exact one.

Papers: Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models"; the cosine schedule is that of Nichol &
Dhariwal 2021. The model itself is in tinygen/models/ddpm.py.
"""

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, optim, plotting
from tinygen.data import eight_gaussians
from tinygen.metrics import beside_floor, mode_coverage, sliced_wasserstein2
from tinygen.models import DDPM, Schedule
from tinygen.nn import ResidualMLP

DEMO = Demo(number=20, data="8 Gaussians", minutes=1, steps=10_000, quick_steps=200)

T = 100
DATA = eight_gaussians()
SCALE = np.float32(2.031)  # standard deviation of the data along each axis; the model sees data / SCALE
EXTENT = (-6.0, 6.0, -6.0, 6.0)


def main(run: Run) -> None:
    # -- the model ---------------------------------------------------------------------------------------------
    net = ResidualMLP(2, 2, width=96, blocks=2, time=32, rng=run.rng)
    model = DDPM(net, Schedule.cosine(T), shape=(2,), predicts="v")
    schedule = optim.cosine(run.steps, warmup=run.steps // 20)
    optimiser = optim.Adam(model.parameters(), lr=2e-3, schedule=schedule)
    ema = optim.EMA(model, decay=0.999)

    # -- training: fresh data at every step --------------------------------------------------------------------
    def step(i, rng):
        loss = model.loss(DATA.sample(256, rng) / SCALE, rng)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        ema.update()
        return loss

    training = run.train(step, {"model": model, "optimiser": optimiser, "ema": ema})

    # -- sampling: the film backwards, with the averaged weights -----------------------------------------------
    sets, n = (2, 500) if run.quick else (20, 2000)
    with ema.swap():
        samples = lambda n: SCALE * model.sample(n, run.rng)
        if run.save_samples(samples, picture=lambda points: draw_samples(run, points)):
            return
        films = [play_backwards(model, n, run.rng) for _ in run.progress(range(sets), "sampling", unit="set")]
        errors, best_loss = against_the_exact_score(model, n, run.rng)

    measure(run, [film[-1] for film in films], errors)
    if run.draws:
        draw(run, model, np.concatenate(films, axis=1), training.losses, best_loss, errors)


def play_backwards(model: DDPM, n: int, rng) -> np.ndarray:
    """x_T, ..., x_0 of n points, (T + 1, n, 2), in the units of the data."""
    return SCALE * np.stack(list(model.denoising(rng.normal((n, 2)), rng)))


def noised_data(model: DDPM, t: int):
    """The exact density p_t of sqrt(abar_t) x_0 + sqrt(1 - abar_t) SCALE eps, in the units of the data."""
    abar = model.schedule.abar[t]
    return DATA.diffused(np.sqrt(abar), SCALE * np.sqrt(1 - abar))


# -- measuring -----------------------------------------------------------------------------------------------------


def against_the_exact_score(model: DDPM, n: int, rng) -> tuple[np.ndarray, float]:
    """(E ||eps_theta - eps*||^2 / E ||eps*||^2)^(1/2) for each t, (T,), and the loss that eps* itself would have."""
    errors, losses = np.empty(T), np.empty(T)
    for t in range(T):
        eps = rng.normal((n, 2))
        x = model.diffuse(DATA.sample(n, rng) / SCALE, np.array([t]), eps)
        exact = -model.spread[t] * SCALE * noised_data(model, t).score(SCALE * x)
        with no_grad():
            learned = model.noise(x, np.array([t])).numpy()
        errors[t] = np.sqrt(np.sum((learned - exact) ** 2) / np.sum(exact**2))
        losses[t] = np.mean((eps - exact) ** 2)
    return errors, float(losses.mean())


def measure(run: Run, sets: list[np.ndarray], errors: np.ndarray) -> None:
    angles = np.pi * np.arange(128) / 128
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distance = lambda x, y: sliced_wasserstein2(x, y, directions=directions)
    fresh = iter(sets)
    w2 = beside_floor(distance, lambda n, rng: next(fresh), DATA.sample, len(sets[0]), run.rng, pairs=len(sets))
    samples = np.concatenate(sets)
    modes, fresh_modes = (
        mode_coverage(x, DATA.means, DATA.std) for x in (samples, DATA.sample(len(samples), run.rng))
    )

    run.metric("sliced W2", w2.value, reference=w2.floor, reference_name="data against data", at_most=1.3 * w2.floor)
    run.metric("sliced W2 / data against data", w2.ratio, reference=1.0, reference_name="perfect", at_most=1.3)
    run.metric("modes found", modes.found, reference=8, reference_name="exact", at_least=8)
    run.metric(
        "% within 3 sigma", 100 * modes.within, reference=99.0, reference_name="exact", at_least=97.9, at_most=99.5
    )
    floor = {"reference": fresh_modes.total_variation, "reference_name": "data against exact"}
    run.metric("mode weights, total variation", modes.total_variation, at_most=0.04, **floor)
    run.metric("noise prediction, relative error", errors.mean(), reference=0.0, reference_name="exact", at_most=0.1)


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, model: DDPM, film: np.ndarray, losses: np.ndarray, best_loss: float, errors: np.ndarray) -> None:
    draw_samples(run, film[-1, :5000])
    plotting.save(
        run.path("learning.png"),
        plotting.curve(losses, "Training loss", smooth=200, levels={"exact score": best_loss}),
        plotting.curve(errors, "Error of the predicted noise", 1 + np.arange(T), "t", "relative error", log="y"),
    )
    draw_trajectories(run, model, film)
    draw_density(run, model, film)


def draw_samples(run: Run, samples: np.ndarray) -> None:
    plotting.save(
        run.path("samples.png"),
        plotting.scatter(DATA.sample(len(samples), run.rng), "Data", EXTENT),
        plotting.scatter(samples, "Samples of the model", EXTENT, plotting.VERMILION),
    )


def draw_trajectories(run: Run, model: DDPM, film: np.ndarray) -> None:
    """Above, the first coordinate of many points against time; below, a few points in the plane."""
    forward = SCALE * np.stack(list(model.noising(DATA.sample(80, run.rng) / SCALE, run.rng)))
    reverse = film[:, :80]
    back = np.arange(T, -1, -1)
    plotting.save(
        run.path("trajectories.png"),
        plotting.strands(forward[:, :, 0], "Forward: data to noise", xlabel="t", colour_at=0),
        plotting.strands(reverse[:, :, 0], "Reverse: noise to data", back, xlabel="t"),
        plotting.trajectories(forward[:, :6], "Six points, pale to dark in time", EXTENT),
        plotting.trajectories(reverse[:, :6], "Six points, pale to dark in time", EXTENT),
        columns=2,
    )


def draw_density(run: Run, model: DDPM, film: np.ndarray) -> None:
    """The exact p_t and the histogram of the model's points, from t = T to 0, on one colour scale per frame."""
    times = list(range(T, -1, -2))  # t counts the steps of noise in x_t, of which 0 is data
    cells = plotting.grid(EXTENT)
    exact = np.stack([np.exp((noised_data(model, t - 1) if t else DATA).log_prob(cells)) for t in times])
    learned = plotting.histogram(film[[T - t for t in times]], EXTENT)
    top = exact.max(axis=(1, 2))
    plotting.animate(
        run.path("density.gif"),
        plotting.heat_map(exact, EXTENT, "Exact density $p_t$", top),
        plotting.heat_map(learned, EXTENT, "The model's samples", top),
        captions=[f"t = {t}" for t in times],
    )
