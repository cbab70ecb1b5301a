"""Normalising flows in the plane: four families, three densities, and grids that show how noise is bent into data.

What if noise were turned into data by a function that can be run backwards?

Then the density of data is known exactly: run the point back to its noise, look up how likely that is, and account for
how much the function stretches space there. The last part is the determinant of a Jacobian, and every family of flows
is one way to have it for free:

    RealNVP          half of the numbers scale and shift the other half                      Dinh et al. 2017
    Glow             the same, and between two of those a learned matrix                     Kingma & Dhariwal 2018
    MAF              each number is scaled and shifted by what the ones before it say        Papamakarios et al. 2017
    neural splines   half of the numbers bend the others along curves                        Durkan et al. 2019

As the densities here are known, so is the least -log p that any model can reach: their entropy. What a model has beyond
that is the KL divergence of the data from it. A round normal has one piece, and eight Gaussians have eight: something
that is stretched but never torn has to leave thin bridges between them, and the grids show where.

A MAF and an IAF (Kingma et al. 2016) are one function seen from two sides. One knows densities fast and is slow to
sample, the other has it the other way round, by as many times as there are dimensions.

The families are in tinygen/models/: flow.py, realnvp.py, glow.py, maf.py, spline.py.
"""

import copy
import time

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, optim, plotting
from tinygen.data import checkerboard, eight_gaussians, pinwheel
from tinygen.models import IAF, MAF, Glow, RealNVP, SplineFlow

DEMO = Demo(
    number=8,
    data="8 Gaussians, checkerboard, pinwheel",
    minutes=4,
    steps=2000,
    quick_steps=10,
    picture="densities.png",
)

DATA = {"8 Gaussians": eight_gaussians(), "checkerboard": checkerboard(), "pinwheel": pinwheel()}
BARS = {"8 Gaussians": (0.10, 0.04), "checkerboard": (0.25, 0.09), "pinwheel": (0.12, 0.06)}  # affine flows, splines
FAMILIES = {"RealNVP": RealNVP, "Glow": Glow, "MAF": MAF, "spline": SplineFlow}
BATCH = 256
EXTENT = (-4.6, 4.6, -4.6, 4.6)


def main(run: Run) -> None:
    # -- twelve models: four families of flows, each for three densities ---------------------------------------
    models = {(data, family): make(2, rng=run.rng) for data in DATA for family, make in FAMILIES.items()}
    optimisers = {}
    for (data, family), model in models.items():
        model.initialise(DATA[data].sample(1024, run.rng))
        schedule = optim.cosine(run.steps, warmup=run.steps // 20)
        optimisers[data, family] = optim.Adam(model.parameters(), lr=3e-3, schedule=schedule)

    # -- training: a step is one of each model, on fresh data --------------------------------------------------
    def step(i, rng):
        losses = {}
        for (data, family), model in models.items():
            loss = model.loss(DATA[data].sample(BATCH, rng))
            loss.backward()
            optimiser = optimisers[data, family]
            optim.clip_grad_norm(optimiser.params, 5.0)
            optimiser.step()
            optimiser.zero_grad()
            losses[f"{family}, {data}"] = loss.detach()
        return {"loss": sum(losses.values()) / len(losses), **losses}

    state = {f"{family}, {data}": model for (data, family), model in models.items()}
    state |= {f"optimiser of {family}, {data}": optimiser for (data, family), optimiser in optimisers.items()}
    training = run.train(step, state, read_every=50)

    # -- what they learned -------------------------------------------------------------------------------------
    splines = [models[data, "spline"] for data in DATA]
    samples = lambda n: np.stack([model.sample(n, run.rng) for model in splines], axis=1)
    if run.save_samples(samples, picture=lambda drawn: draw_samples(run, drawn.swapaxes(0, 1))):
        return
    measure(run, models)
    seconds = asymmetry(run)
    if run.draws:
        draw_samples(run, [model.sample(5000, run.rng) for model in splines])
        draw_densities(run, models)
        draw_grids(run, models)
        draw_learning(run, training, seconds)


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, models: dict) -> None:
    """-log p of fresh points beside the entropy, and how far from a point its noise leads back.

    A flow inverts exactly; what is lost is rounding, most where it squeezes most. The same weights show it in float64.
    """
    n = 1000 if run.quick else 50_000
    lost, lost64 = dict.fromkeys(FAMILIES, 0.0), 0.0
    for (data, family), model in models.items():
        x, entropy = DATA[data].sample(n, run.rng), DATA[data].entropy()
        nll = -np.mean(log_density(model, x), dtype=np.float64)
        allowed = BARS[data][family == "spline"]
        name = f"-log p, {data}, {family}"
        run.metric(name, nll, reference=entropy, reference_name="entropy", at_most=entropy + allowed)
        lost[family] = max(lost[family], round_trip(model, x[:10_000]))
        lost64 = max(lost64, round_trip(copy.deepcopy(model).to(dtype=np.float64), x[:10_000].astype(np.float64)))
    for family, error in lost.items():
        run.metric(f"round trip, {family}", error, reference=2.0**-24, reference_name="rounds once", at_most=1e-5)
    run.metric("round trip in float64, all", lost64, reference=2.0**-53, reference_name="rounds once", at_most=1e-5)


def round_trip(model, x: np.ndarray) -> float:
    """The largest of all |f^-1(f(x)) - x|, as a share of the largest |x|."""
    with no_grad():
        back = model.inverse(model(x)[0]).numpy()
    return np.abs(back - x).max() / np.abs(x).max()


def log_density(model, x: np.ndarray) -> np.ndarray:
    """log p(x), a few thousand points at a time."""
    with no_grad():
        return np.concatenate([model.log_prob(part).numpy() for part in np.array_split(x, -(-len(x) // 5000))])


def asymmetry(run: Run) -> dict[str, np.ndarray]:
    """Seconds for densities and for samples of MAF and IAF in 2, 4, 8, ... dimensions, the best of five each."""
    dimensions = 2 ** np.arange(1, 4 if run.quick else 7)
    seconds = {f"{family}, {what}": [] for family in ("MAF", "IAF") for what in ("density", "sampling")}
    for features in dimensions.tolist():
        x = run.rng.normal((256, features))
        for family, make in (("MAF", MAF), ("IAF", IAF)):
            model = make(features, 2, rng=run.rng)
            seconds[f"{family}, density"].append(fastest(lambda model=model, x=x: log_density(model, x)))
            seconds[f"{family}, sampling"].append(fastest(lambda model=model: model.sample(256, run.rng)))
    for family, slow, fast in (("MAF", "sampling", "density"), ("IAF", "density", "sampling")):
        ratio = seconds[f"{family}, {slow}"][-1] / seconds[f"{family}, {fast}"][-1]
        name = f"{family} of {features} numbers, seconds for {slow} / {fast}"
        run.metric(name, ratio, reference=features, reference_name="passes to one")
    return {"dimensions": dimensions, **{name: np.array(values) for name, values in seconds.items()}}


def fastest(work, times: int = 5) -> float:
    """Seconds of the processor, of which other programs on the machine take none."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw_samples(run: Run, drawn) -> None:
    """Data above, samples of the splines below."""
    fresh = [plotting.scatter(DATA[data].sample(len(x), run.rng), data, EXTENT) for data, x in zip(DATA, drawn)]
    ours = [plotting.scatter(x, "samples of the spline flow", EXTENT, plotting.VERMILION) for x in drawn]
    plotting.save(run.path("samples.png"), *fresh, *ours, columns=len(DATA))


def draw_densities(run: Run, models: dict) -> None:
    """A row for each density: the exact one, then what each family made of it, on one colour scale."""
    cells = plotting.grid(EXTENT, 60 if run.quick else 200)
    flat = cells.reshape(-1, 2).astype(np.float32)
    panels = []
    for data, density in DATA.items():
        exact = np.exp(density.log_prob(cells))
        panels.append(plotting.heat_map(exact, EXTENT, f"{data}, exact", exact.max()))
        for family in FAMILIES:
            learned = np.exp(log_density(models[data, family], flat)).reshape(cells.shape[:2])
            panels.append(plotting.heat_map(learned, EXTENT, family, exact.max()))
    plotting.save(run.path("densities.png"), *panels, columns=1 + len(FAMILIES), dpi=100)


def draw_grids(run: Run, models: dict) -> None:
    """A grid over the noise, carried to the data layer by layer: in a few stages, and as a film."""
    side, fine = np.linspace(-2.6, 2.6, 27), np.linspace(-2.6, 2.6, 261)
    rows = np.stack(np.meshgrid(fine, side), axis=-1).astype(np.float32)
    lines = np.stack([rows, rows[..., ::-1]])  # 27 each way, of 261 points
    for data in DATA:
        stages, films = [], []
        for family in FAMILIES:
            way = list(models[data, family].unfolding(lines.reshape(-1, 2)))
            film = np.stack([way[round(i / 16 * (len(way) - 1))] for i in range(17)])
            rows, columns = film.reshape(17, *lines.shape).swapaxes(0, 1)
            for i, what in zip((0, 4, 8, 12, 16), ("noise", "a quarter", "half", "three quarters", "data")):
                stages.append(plotting.mesh(rows[i], columns[i], f"{family}: {what}", EXTENT))
            films.append(plotting.mesh(rows, columns, family, EXTENT))
        name = data.replace(" ", "_").lower()
        plotting.save(run.path(f"grids_{name}.png"), *stages, columns=5, dpi=80)
        if data == "pinwheel":
            plotting.animate(run.path(f"grids_{name}.gif"), *films, fps=6)


def draw_learning(run: Run, training, seconds: dict[str, np.ndarray]) -> None:
    curves = []
    for data in DATA:
        named = {family: training.values[f"{family}, {data}"] for family in FAMILIES}
        levels = {"entropy": DATA[data].entropy()}
        curves.append(plotting.curve(named, data, smooth=100, ylabel="-log p, nats", log="xy", levels=levels))
    dimensions = seconds.pop("dimensions")
    times = {name: 1e3 * values for name, values in seconds.items()}
    title = "256 points of an autoregressive flow"
    curves.append(plotting.curve(times, title, dimensions, "dimensions", "milliseconds", log="xy"))
    plotting.save(run.path("learning.png"), *curves, columns=2)
