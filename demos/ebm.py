"""An energy-based model of eight Gaussians: contrastive learning with Langevin chains, and an energy that is a density.

What does a network need in order to be a density? Nothing: any energy E makes one, p(x) = exp(-E(x)) / Z.

The price is Z, an integral over everything, which nobody can do. The way round it: the gradient of the likelihood
asks only for samples of the model. So while the network lowers the energy of data, chains of Langevin dynamics (roll
downhill, with noise) wander over the same landscape, and wherever they gather without reason the energy is raised.

In pictures of faces this has been done with short chains and little noise, and what comes out draws well but is no
density (Nijkamp et al. 2020). In the plane it can be done properly, and checked: here Z is a sum over a grid. Three
things make the energy a true one. The noise of a step fits its length, and Metropolis and Hastings correct what is
left; chains are never thrown away, but kept from step to step in a buffer, but for one in a hundred, which begin anew;
and the learning rate falls to zero while the weights are averaged, since energy and chains chase each other.

Papers: LeCun et al. 2006, "A tutorial on energy-based learning"; Tieleman 2008, "Training restricted Boltzmann machines
using approximations to the likelihood gradient"; Du & Mordatch 2019, "Implicit generation and modeling with energy
based models"; Nijkamp et al. 2020, "On the anatomy of MCMC-based maximum likelihood learning of energy-based models".
The model itself is in tinygen/models/ebm.py.
"""

from itertools import islice

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, ops, optim, plotting
from tinygen.data import eight_gaussians
from tinygen.metrics import mode_coverage
from tinygen.models import EBM
from tinygen.models.ebm import ReplayBuffer, after
from tinygen.nn import MLP

DEMO = Demo(
    number=7,
    data="8 Gaussians",
    minutes=1,
    steps=4000,
    quick_steps=50,
    picture="density.png",
)

DATA = eight_gaussians()
BATCH, CHAINS, RESTARTED = 256, 1024, 0.01
STEPS, STEP = 10, 0.3  # of Langevin dynamics between two steps of training; the noise of one, beside modes 0.35 wide
SPREAD = 4.0  # s: where f says nothing the model is N(0, s^2 I)
EXTENT = (-5.0, 5.0, -5.0, 5.0)


def main(run: Run) -> None:
    # -- the energy, the chains -----------------------------------------------------------------------------------
    model = EBM(MLP([2, 64, 64, 1], ops.silu, rng=run.rng), features=2, spread=SPREAD)
    buffer = ReplayBuffer(everywhere, CHAINS, RESTARTED, run.rng)
    schedule = optim.cosine(run.steps, warmup=run.steps // 40)
    optimiser = optim.Adam(model.parameters(), lr=5e-3, schedule=schedule)
    ema = optim.EMA(model, decay=0.995)

    # -- training: data down, chains up ---------------------------------------------------------------------------
    def step(i, rng):
        data = DATA.sample(BATCH, rng)
        drawn = buffer.advanced(model, BATCH, STEPS, STEP, rng)
        loss = model.loss(data, drawn)
        loss.backward()
        optim.clip_grad_norm(optimiser.params, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        ema.update()
        return {"loss": loss, "energy of data": mean_energy(model, data), "energy of chains": mean_energy(model, drawn)}

    training = run.train(step, {"model": model, "optimiser": optimiser, "ema": ema, "buffer": buffer})

    # -- what it learned, with the averaged weights ---------------------------------------------------------------
    with ema.swap():
        picture = lambda points: draw_samples(run, points)
        if run.save_samples(lambda n: model.sample(n, run.rng, 100 if run.quick else 2000, STEP), picture):
            return
        log_z = model.log_z()
        chains = measure(run, model, buffer, log_z)
        if run.draws:
            draw(run, model, chains, log_z, training)


def everywhere(n: int, rng) -> np.ndarray:
    """Where chains begin: N(0, s^2 I), wider than the data."""
    return np.float32(SPREAD) * rng.normal((n, 2))


def mean_energy(model: EBM, x: np.ndarray) -> float:
    with no_grad():
        return ops.mean(model.energy(x))


def log_density(model: EBM, x: np.ndarray, log_z: float) -> np.ndarray:
    """-E(x) - log Z of points (..., 2), (...)."""
    with no_grad():
        energy = model.energy(x.reshape(-1, 2).astype(np.float32)).numpy()
    return (-energy - log_z).reshape(x.shape[:-1])


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, model: EBM, buffer: ReplayBuffer, log_z: float) -> np.ndarray:
    """-log p of fresh data with Z by the grid; what chains draw that have gone on for long, (8 n, 2)."""
    x, entropy = DATA.sample(2000 if run.quick else 50_000, run.rng), DATA.entropy()
    nll = -np.mean(log_density(model, x, log_z), dtype=np.float64)
    run.metric("-log p, Z by the grid", nll, reference=entropy, reference_name="entropy", at_most=entropy + 0.1)

    walk, kept = model.walk(buffer.places, STEP, run.rng), []
    for _ in run.progress(range(8), "chains", unit="draw"):
        kept.append(after(20 if run.quick else 250, walk))
    chains = np.concatenate(kept)
    modes = mode_coverage(chains, DATA.means, DATA.std)
    cells = plotting.grid((-8.0, 8.0, -8.0, 8.0), 200)
    weights = np.exp(log_density(model, cells, log_z)).ravel() * (16 / 200) ** 2
    nearest = np.argmin(np.linalg.norm(cells.reshape(-1, 1, 2) - DATA.means, axis=-1), axis=1)
    shares = np.bincount(nearest, weights, minlength=DATA.modes)
    exact = {"reference": 0.0, "reference_name": "exact"}
    run.metric("mode weights of the density, total variation", 0.5 * np.abs(shares - DATA.weights).sum(), **exact)
    run.metric("mode weights of the chains, total variation", modes.total_variation, **exact)
    run.metric("modes found by the chains", modes.found, reference=DATA.modes, reference_name="exact")
    run.metric("% of the chains within 3 sigma", 100 * modes.within, reference=99.0, reference_name="exact")
    return chains


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, model: EBM, chains: np.ndarray, log_z: float, training) -> None:
    draw_samples(run, chains[run.rng.permutation(len(chains))[:5000]])
    cells = plotting.grid(EXTENT, 120)
    exact, learned = DATA.log_prob(cells), log_density(model, cells, log_z)
    top = np.exp(exact).max()
    plotting.save(
        run.path("density.png"),
        plotting.heat_map(np.exp(exact), EXTENT, "Exact density", top),
        plotting.heat_map(np.exp(learned), EXTENT, "exp(-E(x)) / Z", top),
        around_the_ring(model, log_z),
    )
    energies = {name: training.values[name] for name in ("energy of data", "energy of chains")}
    difference = training.values["energy of data"] - training.values["energy of chains"]
    plotting.save(
        run.path("learning.png"),
        plotting.curve(energies, "Mean energies", smooth=100, ylabel="nats"),
        plotting.curve(difference, "Data less chains", smooth=100, ylabel="nats", levels={"alike": 0.0}),
    )
    draw_descent(run, model, learned)


def around_the_ring(model: EBM, log_z: float) -> plotting.Panel:
    """-log p along the circle through the modes: eight wells, and the passes between them."""
    angle = np.linspace(0, 2 * np.pi, 400)
    circle = np.linalg.norm(DATA.means[0]) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    heights = {"E(x) + log Z": -log_density(model, circle, log_z), "exact": -DATA.log_prob(circle)}
    return plotting.curve(heights, "Along the circle of the modes", angle, "angle", "-log p, nats")


def draw_samples(run: Run, samples: np.ndarray) -> None:
    plotting.save(
        run.path("samples.png"),
        plotting.scatter(DATA.sample(len(samples), run.rng), "Data", EXTENT),
        plotting.scatter(samples, "Langevin chains", EXTENT, plotting.VERMILION),
    )


def draw_descent(run: Run, model: EBM, learned: np.ndarray) -> None:
    """Particles that roll down the energy, from everywhere: many frames for the first steps, then ever fewer."""
    frames = np.unique(np.geomspace(1, 100 if run.quick else 1000, 60).astype(int))
    start = everywhere(400, run.rng)
    path = [start, *islice(model.walk(start, 0.1, run.rng), int(frames[-1]))]
    film = np.stack([path[i] for i in (0, *frames)])
    depth = np.maximum(learned, learned.max() - 14) - (learned.max() - 14)  # the lowest 14 nats; above that it is flat
    ground = plotting.heat_map(depth, EXTENT, "Langevin particles on the energy", colours="Blues")
    particles = plotting.scatter(film, extent=EXTENT, colour=plotting.VERMILION, size=3)
    captions = [f"{t} steps" for t in (0, *frames)]
    plotting.animate(run.path("langevin.gif"), plotting.overlay(ground, particles), captions=captions, fps=10)
