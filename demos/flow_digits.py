"""Flows of images and flows in continuous time: digits at two scales, and a current that carries noise to eight modes.

How do flows grow up: to images, and to layers without end?

For images, couplings become convolutions, and half of the numbers leave as noise halfway, so that the rest can be
worked on at a coarser scale (Dinh et al. 2017; Kingma & Dhariwal 2018; the couplings are splines: Durkan et al. 2019).
The measure is bits per pixel of digits at 256 grey levels: how long a file would be if the model compressed it. Beside
it stands a mixture of fifty Gaussians with full covariances, fitted behind the same logit, which knows every pair of
pixels of each of its kinds of digit, but no strokes. (The same flow in PyTorch: tests/benchmarks/flow_beside_torch.py.)
Walks from digit to digit show what a flow has that a GAN lacks: every image has its one place in noise.

In continuous time a flow follows a velocity field, and its density changes by the trace of the field's Jacobian (Chen
et al. 2018), exactly, or by a cheap estimate of it (Grathwohl et al. 2019). In the plane both can be afforded, and
compared: they lead to the same density, the estimate with more noise on the way.

Papers: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP"; Kingma & Dhariwal 2018, "Glow:
generative flow with invertible 1x1 convolutions"; Durkan et al. 2019, "Neural spline flows"; Chen et al. 2018, "Neural
ordinary differential equations"; Grathwohl et al. 2019, "FFJORD". The models are in tinygen/models/: multiscale_flow.py
and cnf.py.
"""

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, optim, plotting
from tinygen.data import Batches, bits_per_dimension, dequantise, eight_gaussians, load
from tinygen.models import CNF, GMM, MultiscaleFlow
from tinygen.models.cnf import Velocity
from tinygen.models.multiscale_flow import Logit
from tinygen.training import Training

DEMO = Demo(
    number=9,
    data="digits, 14 x 14, grey; 8 Gaussians",
    minutes=8,
    steps=1500,
    quick_steps=6,
    datasets=("digits", "full"),
)

SIDE = 14
PIXELS = SIDE * SIDE
PLANE = eight_gaussians()
EXTENT = (-4.6, 4.6, -4.6, 4.6)
LEAST_VARIANCE = 0.3  # of the Gaussians: of .03, .1, .3, .7 and 1.5 the one with the fewest bits on held-out digits


def main(run: Run) -> None:
    # -- data: digits of half the size, at 256 grey levels ---------------------------------------------------------
    train, held_out = load(run.data, size=SIDE)[1:]
    x = held_out.images[:: 50 if run.quick else 1]

    # -- models and training ---------------------------------------------------------------------------------------
    size = {"steps": 2, "width": 8} if run.quick else {"steps": 6, "width": 48}
    model = MultiscaleFlow((SIDE, SIDE, 1), scales=2, **size, rng=run.rng)
    training = fit(run, model, train.images)
    currents = {trace: CNF(Velocity(2, 64, rng=run.rng), 2, trace) for trace in ("exact", "hutchinson")}
    traces = {name: fit_current(run, cnf, name) for name, cnf in currents.items()}

    # -- what they learned -----------------------------------------------------------------------------------------
    picture = lambda drawn: plotting.save(run.path("samples.png"), plotting.images(drawn[:100], "Samples", columns=10))
    if run.save_samples(lambda n: np.clip(model.sample(n, run.rng), 0, 1), picture):
        return
    measure(run, model, currents, train.images, x)
    if run.draws:
        draw(run, model, x, held_out.labels[:: 50 if run.quick else 1], training)
        draw_currents(run, currents, traces)


def fit(run: Run, model: MultiscaleFlow, images: np.ndarray, batch: int = 64) -> Training:
    model.initialise(dequantise(images[:512], run.rng))
    batches = Batches(images, size=batch, rng=run.rng)
    optimiser = optim.Adam(model.parameters(), lr=2e-3, schedule=optim.cosine(run.steps, warmup=run.steps // 20))

    def step(i, rng):
        loss = model.loss(dequantise(next(batches), rng))
        loss.backward()
        optim.clip_grad_norm(optimiser.params, 100.0)
        optimiser.step()
        optimiser.zero_grad()
        return {"loss": loss, "bits per pixel": bits_per_dimension(-loss.item(), PIXELS)}

    return run.train(step, {"model": model, "optimiser": optimiser, "batches": batches}, read_every=20)


def fit_current(run: Run, cnf: CNF, name: str, batch: int = 256) -> Training:
    steps = max(run.steps // 2, 2)
    optimiser = optim.Adam(cnf.parameters(), lr=5e-3, schedule=optim.cosine(steps, warmup=steps // 20))

    def step(i, rng):
        loss = cnf.loss(PLANE.sample(batch, rng), rng)
        loss.backward()
        optim.clip_grad_norm(optimiser.params, 5.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss

    return run.train(step, {"model": cnf, "optimiser": optimiser}, steps=steps, name=f"current with {name} trace")


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, model: MultiscaleFlow, currents: dict[str, CNF], train: np.ndarray, x: np.ndarray) -> None:
    gaussians = bits_of_gaussians(run, train, x)
    run.metric("bits per pixel, 50 Gaussians", gaussians)
    run.metric(
        "bits per pixel, multiscale flow",
        bits_per_dimension(log_prob(model, dequantise(x, run.rng)), PIXELS).mean(),
        reference=gaussians,
        reference_name="50 Gaussians",
        at_most=gaussians - 0.3,
    )
    with no_grad():
        y = dequantise(x[:200], run.rng)
        lost = np.abs(model.inverse(model(y)[0]).numpy() - y).max()
    run.metric("round trip, grey levels", 255 * lost, at_most=0.5)

    points = PLANE.sample(200 if run.quick else 10_000, run.rng)
    for name, cnf in currents.items():
        with cnf.precise():
            nats = -log_prob(cnf, points).mean()
        run.metric(f"-log p, current, {name} trace", nats, reference=PLANE.entropy(), reference_name="entropy")


def bits_of_gaussians(run: Run, train: np.ndarray, x: np.ndarray) -> float:
    """Fifty Gaussians with full covariances, fitted where the flow begins as well: behind the logit."""
    on_the_line = lambda images: Logit()(dequantise(images, run.rng).reshape(-1, PIXELS))
    gmm = GMM(2 if run.quick else 50, PIXELS, floor=LEAST_VARIANCE)
    gmm.fit(on_the_line(train)[0], run.rng, starts=1, trial=1, steps=2 if run.quick else 20)
    z, log_det = on_the_line(x)
    return bits_per_dimension(gmm.log_prob(z) + log_det, PIXELS).mean()


def log_prob(model, x: np.ndarray, size: int = 1000) -> np.ndarray:
    with no_grad():
        parts = [model.log_prob(x[i : i + size]).numpy() for i in range(0, len(x), size)]
    return np.concatenate(parts).astype(np.float64)


# -- drawing -------------------------------------------------------------------------------------------------------


def draw(run: Run, model: MultiscaleFlow, x: np.ndarray, labels: np.ndarray, training: Training) -> None:
    shown = lambda images: np.clip(images, 0, 1)
    z = run.rng.normal((100, SIDE, SIDE, 1))
    mosaics = [plotting.images(x[run.rng.permutation(len(x))[:100]], "Held-out digits", columns=10)]
    for temperature in (1.0, 0.7):
        drawn = model.inverse(np.float32(temperature) * z)
        mosaics.append(plotting.images(shown(drawn.numpy()), f"Samples, temperature {temperature}", columns=10))
    plotting.save(run.path("samples.png"), *mosaics)

    ends = encoded(run, model, np.stack([x[np.flatnonzero(labels == digit)[0]] for digit in range(10)]))
    walks = [shown(decoded(model, between(ends[digit], ends[(digit + 1) % 10]))) for digit in (0, 2, 4, 6, 8)]
    plotting.save(
        run.path("walk.png"), plotting.images(np.concatenate(walks), "From digit to digit, through noise", columns=12)
    )

    half = PIXELS // 2  # what leaves at the first scale
    kept = ends.reshape(10, PIXELS)
    fresh = run.rng.normal((10, 4, PIXELS))
    fine, coarse = (np.broadcast_to(kept[:, None], fresh.shape).copy() for _ in range(2))
    fine[..., :half], coarse[..., half:] = fresh[..., :half], fresh[..., half:]
    again = lambda z: shown(decoded(model, np.concatenate([kept[:, None], z], axis=1).reshape(-1, SIDE, SIDE, 1)))
    plotting.save(
        run.path("scales.png"),
        plotting.images(again(fine), "Four times new noise\nof scale 1", columns=5),
        plotting.images(again(coarse), "Four times new noise\nof scale 2", columns=5),
        plotting.curve(training.values["bits per pixel"], "Training", smooth=50, ylabel="bits per pixel", log="y"),
    )


def encoded(run: Run, model: MultiscaleFlow, x: np.ndarray) -> np.ndarray:
    with no_grad():
        return model(dequantise(x, run.rng))[0].numpy()


def decoded(model: MultiscaleFlow, z: np.ndarray) -> np.ndarray:
    with no_grad():
        return model.inverse(z).numpy()


def between(a: np.ndarray, b: np.ndarray, steps: int = 12) -> np.ndarray:
    """Points on the arc from a to b: on a straight line the middle would be nearer to 0 than noise ever is."""
    angle = np.linspace(0, np.pi / 2, steps, dtype=np.float32).reshape(-1, 1, 1, 1)
    return np.cos(angle) * a + np.sin(angle) * b


def draw_currents(run: Run, currents: dict[str, CNF], traces: dict[str, Training]) -> None:
    way = np.array(list(currents["exact"].unfolding(run.rng.normal((3000, 2)), frames=30)))
    captions = [f"t = {t:.2f}" for t in np.linspace(0, 1, len(way))]
    moving = plotting.scatter(way, "Noise, carried to eight modes", EXTENT)
    plotting.animate(run.path("current.gif"), moving, captions=captions, fps=10)
    cells = plotting.grid(EXTENT, 40 if run.quick else 120)
    flat = cells.reshape(-1, 2).astype(np.float32)
    exact = np.exp(PLANE.log_prob(cells))
    maps = [plotting.heat_map(exact, EXTENT, "Exact density", exact.max())]
    for name, cnf in currents.items():
        learned = np.exp(log_prob(cnf, flat)).reshape(cells.shape[:2])
        maps.append(plotting.heat_map(learned, EXTENT, f"Current, {name} trace", exact.max()))
    curves = {f"{name} trace": training.losses for name, training in traces.items()}
    learning = plotting.curve(
        curves, "While training", smooth=30, ylabel="-log p, nats", levels={"entropy": PLANE.entropy()}
    )
    plotting.save(run.path("currents.png"), *maps, learning, columns=2)
