"""Optimisers, learning-rate schedules, gradient clipping, and the moving average of the weights.

An optimiser changes the memory of its parameters in place and never reads a value back from a device: what it decides
(clipping, schedules) it computes in arrays or in step numbers. A training step:

    loss = model(x).mean()
    loss.backward()                        # adds to each parameter's .grad
    clip_grad_norm(optimiser.params, 1.0)
    optimiser.step()                       # reads .grad, changes the parameters
    optimiser.zero_grad()
    ema.update()

Update rules are methods of plain array arithmetic, so that they read like the papers; g is the gradient, theta the
parameter. On the CPU in float32 Adam, clipping and the moving average run as kernels, which take all arrays of a model
in one pass (`tinygen.dispatch.update`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygen import arrays, dispatch
from tinygen.errors import DtypeError, GraphError, InputError
from tinygen.nn.module import Module, matched
from tinygen.tensor import Tensor

Schedule = Callable[[int], float]
"""step -> factor on the learning rate; steps are counted from 0."""


class Optimizer:
    """What all optimisers share: a checked list of parameters, the learning rate and its schedule, saving and loading.

    The learning rate of step k = 0, 1, ... is `lr * schedule(k)`; `lr` may be assigned to at any time. A parameter
    whose `.grad` is None, because it is frozen or took no part, is skipped: neither it nor its averages change.

    A subclass names in `slots` the arrays that it keeps for each parameter and writes `update`, which changes them and
    the parameter in place, or `update_all`, which does so for all parameters together.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float, schedule: Schedule | None = None):
        self.params = parameter_list(params, type(self).__name__)
        self.lr = at_least_zero(lr, f"{type(self).__name__}: lr")
        self.schedule = schedule or constant
        self.steps = 0  # how often step() was called
        self.counts = [0] * len(self.params)  # how often each parameter was changed: t in the papers
        self._arrays = [p.data for p in self.params]
        self._state = [tuple(arrays.xp(a).zeros_like(a, order="C") for _ in self.slots) for a in self._arrays]

    def update(self, theta: Any, g: Any, lr: float, t: int, *slots: Any) -> None:
        """Change theta and the slots in place, given the gradient; t = 1 at a parameter's first update."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule; write one.")

    def step(self) -> None:
        """Change every parameter by its gradient."""
        lr = self.lr * float(self.schedule(self.steps))
        self.steps += 1
        jobs: dict[int, list[tuple]] = {}  # t: (theta, g, *slots) of each parameter; most often all have one t
        for i, (p, theta, slots) in enumerate(zip(self.params, self._arrays, self._state, strict=True)):
            g = p.grad
            if g is None:
                continue
            if p.data is not theta:
                raise InputError(
                    f"{type(self).__name__}: parameter {i}, of shape {p.shape}, was moved to another device or dtype "
                    "after this optimiser was made. Move the model first, then make the optimiser."
                )
            self.counts[i] += 1
            jobs.setdefault(self.counts[i], []).append((theta, g, *slots))
            p.touch()
        for t, group in jobs.items():
            self.update_all(group, lr, t)

    def update_all(self, jobs: list[tuple], lr: float, t: int) -> None:
        """`update` for each (theta, g, *slots). A rule with a kernel hands it all of them at once."""
        for theta, g, *slots in jobs:
            self.update(theta, g, lr, t, *slots)

    def zero_grad(self) -> None:
        """Forget the gradients, so that the next backward does not add to them."""
        for p in self.params:
            if p.requires_grad:
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that step() changes, and lr: numbers and NumPy arrays, which an .npz holds without pickle."""
        state = {"lr": self.lr, "steps": self.steps, "counts": np.array(self.counts)}
        return state | {name: arrays.to_numpy(a).copy() for name, a in self._named_slots().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, bit for bit, where the optimiser of `state` stood. Raises InputError if it had other parameters."""
        own = {"lr": 0.0, "steps": 0, "counts": self.counts} | self._named_slots()
        state = matched(type(self).__name__, own, state)
        self.lr, self.steps, self.counts = float(state["lr"]), int(state["steps"]), state["counts"].tolist()
        for name, a in self._named_slots().items():
            a[...] = arrays.xp(a).asarray(state[name])

    def _named_slots(self) -> dict[str, Any]:
        return {f"{s}.{i}": a for i, own in enumerate(self._state) for s, a in zip(self.slots, own, strict=True)}

    def __repr__(self) -> str:
        size = f"{sum(p.size for p in self.params):,} parameters in {len(self.params)} tensors"
        return f"{type(self).__name__}({size}, lr={self.lr:g}, step {self.steps})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum as a running sum of gradients (Sutskever et al. 2013).

        g = g + weight_decay theta
        b = momentum b + g
        theta = theta - lr b                        (nesterov: theta - lr (g + momentum b))

    The learning rate stands outside b, as in PyTorch; in the paper it stands inside.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ):
        self.momentum = below_one(momentum, "SGD: momentum")
        self.weight_decay = at_least_zero(weight_decay, "SGD: weight_decay")
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise InputError("SGD: nesterov=True looks ahead along the momentum, which is 0; give it one, such as 0.9.")
        self.slots = ("b",) if momentum else ()
        super().__init__(params, lr, schedule)

    def update(self, theta: Any, g: Any, lr: float, t: int, b: Any = None) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * theta
        if b is not None:
            b *= self.momentum
            b += g
            g = g + self.momentum * b if self.nesterov else b
        theta -= lr * g


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square of themselves (Tieleman & Hinton 2012, lecture 6.5).

        v = decay v + (1 - decay) g^2
        theta = theta - lr g / (sqrt(v) + eps)
    """

    slots = ("v",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        decay: float = 0.99,
        eps: float = 1e-8,
        schedule: Schedule | None = None,
    ):
        self.decay, self.eps = below_one(decay, "RMSprop: decay"), at_least_zero(eps, "RMSprop: eps")
        super().__init__(params, lr, schedule)

    def update(self, theta: Any, g: Any, lr: float, t: int, v: Any) -> None:
        v *= self.decay
        v += (1 - self.decay) * (g * g)
        theta -= lr * g / (arrays.xp(v).sqrt(v) + self.eps)


class AdamW(Optimizer):
    """Adam with decoupled weight decay: the weights shrink by lr * weight_decay, past the moments.

    Loshchilov & Hutter 2019, algorithm 2; the moments are those of Kingma & Ba 2015. See `adam_step`.
    """

    slots = ("m", "v")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        schedule: Schedule | None = None,
    ):
        name = type(self).__name__
        self.betas = tuple(below_one(beta, f"{name}: each of betas") for beta in betas)
        self.eps, self.weight_decay = at_least_zero(eps, f"{name}: eps"), at_least_zero(weight_decay, f"{name}: decay")
        super().__init__(params, lr, schedule)

    def update_all(self, jobs: list[tuple], lr: float, t: int) -> None:
        beta1, beta2 = self.betas
        numbers = (lr, beta1, beta2, self.eps, 1 - beta1**t, 1 - beta2**t, self.weight_decay)
        dispatch.update("adam_step", adam_step, jobs, *numbers)


class Adam(AdamW):
    """Steps of about lr in every coordinate, whatever the scale of its gradient (Kingma & Ba 2015). See `adam_step`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        schedule: Schedule | None = None,
    ):
        super().__init__(params, lr, betas, eps, 0.0, schedule)


def adam_step(theta, g, m, v, lr, beta1, beta2, eps, correction1, correction2, weight_decay) -> None:
    """One step of Adam, in place: Kingma & Ba 2015, algorithm 1. All arrays have one shape.

        m = beta1 m + (1 - beta1) g                 a running mean of the gradient
        v = beta2 v + (1 - beta2) g^2               and of its square
        theta = theta - lr mhat / (sqrt(vhat) + eps),   mhat = m / (1 - beta1^t),   vhat = v / (1 - beta2^t)

    m and v begin as zeros, which pulls their first values towards 0; the corrections 1 - beta^t undo just that.
    This is the definition; `kernels/cpu/adam.py` computes the same in one pass, over all parameters of a model.
    """
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    theta *= 1 - lr * weight_decay
    theta -= lr * (m / correction1) / (arrays.xp(v).sqrt(v / correction2) + eps)


# -- schedules ---------------------------------------------------------------------------------------------------------


def constant(step: int) -> float:
    """The learning rate as it was given."""
    return 1.0


def warmup(steps: int) -> Schedule:
    """A line from 1/steps at step 0 to 1 at step steps - 1, then 1: gives Adam's averages time to settle."""
    steps = _whole(steps, "warmup: steps")
    return lambda step: min(1.0, (step + 1) / steps)


def cosine(total: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """After a linear warm-up, half a cosine from 1 to `final` at step `total` (Loshchilov & Hutter 2017, eq. 5)."""
    total = _whole(total, "cosine: total")
    if not 0 <= warmup < total:
        raise InputError(f"cosine: warmup must lie between 0 and total = {total}, not {warmup}.")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (total - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def stepwise(every: int, factor: float = 0.1) -> Schedule:
    """Multiplies by `factor` once in every `every` steps."""
    every = _whole(every, "stepwise: every")
    return lambda step: factor ** (step // every)


# -- clipping ----------------------------------------------------------------------------------------------------------


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> Any:
    """Scale all gradients by one factor, so that their joint Euclidean norm is at most `max_norm` (Pascanu et al. 2013,
    algorithm 1). Returns the norm before, a 0-d array on the gradients' device; nothing is read back from there.

    Where the norm is not finite neither are the gradients afterwards, so that the loss shows it.
    """
    if not max_norm > 0:
        raise InputError(f"clip_grad_norm: max_norm must be above 0, not {max_norm}.")
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        raise GraphError("clip_grad_norm: no parameter has a gradient yet; call it between backward() and step().")
    jobs = [(g,) for g in grads]
    if fast := dispatch.together("clip", jobs):
        return fast(jobs, max_norm)
    xp = arrays.xp(grads[0])
    norm = xp.sqrt(sum(xp.vdot(g, g) for g in grads))
    scale = max_norm / xp.maximum(norm, max_norm)
    for g in grads:
        g *= scale
    return xp.asarray(norm)


# -- the moving average of the weights ---------------------------------------------------------------------------------


def move_average(average, theta, rate) -> None:
    """average + rate (theta - average), in place. The definition; `kernels/cpu/ema.py` computes it in one pass."""
    difference = theta - average
    difference *= rate
    average += difference


class EMA:
    """An exponential moving average of parameters, from which generative models sample: it forgets the noise of the
    last few steps.

        average = average + (1 - d) (theta - average),     d = min(decay, (1 + k) / (10 + k)) at update k = 0, 1, ...

    The average begins as a copy of the parameters, which are random then; the smaller d of the first updates makes it
    forget them: after n updates with d < decay it averages over about the last n / 9. It remembers some 1 / (1 - decay)
    updates in the long run. Takes a Module (its parameters; buffers stay as they are) or a list of parameters.
    """

    def __init__(self, model: Module | Iterable[Tensor], decay: float = 0.999):
        self.decay = below_one(decay, "EMA: decay")
        if isinstance(model, Module):
            named = dict(model.named_parameters())
        else:
            named = {str(i): p for i, p in enumerate(parameter_list(model, "EMA"))}
        self.names, self.params = list(named), parameter_list(named.values(), "EMA")
        self.averages = [p.data.copy() for p in self.params]
        self.updates = 0
        self._swapped = False

    def update(self) -> None:
        """Move the averages towards the parameters; call it after each optimiser step."""
        if self._swapped:
            raise GraphError("EMA: update() inside swap(), where the parameters are the averages; leave swap() first.")
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        jobs = [(average, p.data) for average, p in zip(self.averages, self.params, strict=True)]
        dispatch.update("move_average", move_average, jobs, rate)

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Within this context the parameters hold the averages: for sampling and evaluation. Training goes on after."""
        if self._swapped:
            raise GraphError("EMA: swap() inside swap(); the parameters hold the averages already.")
        trained = [p.data.copy() for p in self.params]
        self._swapped = True
        try:
            self.copy_to(self.params)
            yield
        finally:
            self._swapped = False
            for p, values in zip(self.params, trained, strict=True):
                p.data = values

    def copy_to(self, params: Iterable[Tensor]) -> None:
        """Write the averages into `params`, for example those of a second model, in the same order."""
        for p, average in zip(params, self.averages, strict=True):
            p.data = average

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, and the averages by the names of their parameters, as NumPy arrays."""
        named = zip(self.names, self.averages, strict=True)
        return {"updates": self.updates} | {f"average.{name}": arrays.to_numpy(a).copy() for name, a in named}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, bit for bit, where the average of `state` stood. Raises InputError if it had other parameters."""
        own = {f"average.{name}": a for name, a in zip(self.names, self.averages, strict=True)}
        state = matched("EMA", {"updates": 0} | own, state)
        self.updates = int(state["updates"])
        for name, a in own.items():
            a[...] = arrays.xp(a).asarray(state[name])


# -- checks ------------------------------------------------------------------------------------------------------------


def parameter_list(params: Iterable[Tensor], who: str) -> list[Tensor]:
    """`params` as a list, after checking that each is a float leaf and none comes twice."""
    if isinstance(params, Module | Tensor):
        hint = "model.parameters()" if isinstance(params, Module) else "[parameter]"
        raise InputError(f"{who}: give a list of parameters, such as {hint}, not a {type(params).__name__} itself.")
    params = list(params)
    if not params:
        raise InputError(f"{who}: the list of parameters is empty; there is nothing to train.")
    first: dict[int, int] = {}
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise InputError(f"{who}: parameter {i} is a {type(p).__name__}, not a Tensor; give Parameters.")
        if p.dtype.kind != "f":
            raise DtypeError(f"{who}: parameter {i} holds {p.dtype}; only floats have gradients.")
        if not p.is_leaf:
            raise GraphError(f"{who}: parameter {i} is computed, not a leaf; give what it was computed from.")
        if id(p) in first:
            raise InputError(f"{who}: parameter {i} is parameter {first[id(p)]} again; give each once.")
        first[id(p)] = i
    return params


def at_least_zero(value: float, what: str) -> float:
    if not 0 <= value < math.inf:
        raise InputError(f"{what} must be a finite number of at least 0, not {value}.")
    return float(value)


def below_one(value: float, what: str) -> float:
    if not 0 <= value < 1:
        raise InputError(f"{what} must lie in [0, 1), not {value}.")
    return float(value)


def _whole(value: int, what: str) -> int:
    if value < 1:
        raise InputError(f"{what} must be at least 1, not {value}.")
    return value
