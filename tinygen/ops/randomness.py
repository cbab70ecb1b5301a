"""Random ops. They take the key of a draw (`tinygen.random.Generator.key()`), so they are pure: the same key, the same
numbers, also when backward or a replay computes them again."""

from __future__ import annotations

from tinygen import arrays, dispatch
from tinygen.errors import InputError
from tinygen.random import uniform_at
from tinygen.registry import op


def _dropouts(draw):
    params = {"rate": draw.choice([0.0, 0.25, 0.5, 1.0]), "key": (draw.integer(0, 9), draw.integer(0, 9))}
    return (draw.array(draw.shape()),), params


@op(inputs=_dropouts)
def dropout(x, /, rate, key):
    """Each element is zero with probability `rate` (Srivastava et al. 2014), else divided by 1 - rate, which keeps the
    expectation. Rate 0 changes nothing, rate 1 leaves zeros.

    `key` is `rng.key()` of a `tinygen.random.Generator`; an equal key drops equal elements of an equal shape.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"rate is a probability from 0 to 1, not {rate}")
    if fast := dispatch.instead("dropout", x):
        return fast(x, rate, key)
    kept = arrays.to_device(uniform_at(key, x.shape) >= rate, arrays.device_of(x))
    return arrays.xp(x).where(kept, x, 0) * (1 / (1 - rate) if rate < 1 else 0.0)


dropout.vjp(lambda g, rate, key: dropout(g, rate, key))  # linear in x, and symmetric; no mask has to be kept
