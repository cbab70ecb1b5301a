"""One Adam step over many flat arrays of parameters: Kingma & Ba 2015, algorithm 1, with decoupled weight decay.

    m_t = beta1 m_(t-1) + (1 - beta1) g            v_t = beta2 v_(t-1) + (1 - beta2) g^2
    theta_t = theta_(t-1) - lr weight_decay theta_(t-1) - lr mhat_t / (sqrt(vhat_t) + eps)
    mhat_t = m_t / (1 - beta1^t)                   vhat_t = v_t / (1 - beta2^t)

The weight decay is that of AdamW (Loshchilov & Hutter 2019, algorithm 2); at 0 this is plain Adam.

Memory: one pass; four arrays read and three written, 28 bytes a parameter, where the same formula written with array
operations makes about twelve passes. Operations: 12, a square root and a division: bound by memory once the parameters
outgrow the cache. Measured on one AVX-512 core, a million parameters: 0.22 ms, 125 GB/s, the speed of a plain copy; the
array operations took 1.4 ms. A network has dozens of arrays, most of them small, and to call a kernel from Python costs
as much as some thousand parameters: so one call takes several arrays, as if they stood one after the other.
"""

import numpy as np

from .compiling import kernel

float32 = np.float32


@kernel
def adam_steps(params, grads, ms, vs, begin, end, lr, beta1, beta2, eps, correction1, correction2, weight_decay):
    """`adam_step` for parameters begin ... end - 1 of all. Tuples of flat arrays, whose i-th are of one size."""
    at = 0                                                          # where array i begins
    for i in range(len(params)):
        size = params[i].size
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            part = slice(first, last)
            adam_step(params[i][part], grads[i][part], ms[i][part], vs[i][part], lr, beta1, beta2, eps,
                      correction1, correction2, weight_decay)
        at += size


@kernel
def adam_step(param, grad, m, v, lr, beta1, beta2, eps, correction1, correction2, weight_decay):
    """Updates `param`, `m` and `v` in place. All four arrays: (parameters,) float32, C-contiguous.

    `correction1` = 1 - beta1^t and `correction2` = 1 - beta2^t at step t = 1, 2, ...; all scalars are Python floats.
    """
    b1, one_minus_b1 = float32(beta1), float32(1.0 - beta1)        # 1 - beta in float64: in float32, 1 - .999 has an
    b2, one_minus_b2 = float32(beta2), float32(1.0 - beta2)        # error of 5e-5
    step_size = float32(lr / correction1)
    scale_v = float32(1.0 / correction2)
    decay = float32(1.0 - lr * weight_decay)
    small = float32(eps)
    for i in range(param.size):
        g = grad[i]
        m[i] = b1 * m[i] + one_minus_b1 * g
        v[i] = b2 * v[i] + one_minus_b2 * (g * g)
        param[i] = decay * param[i] - step_size * m[i] / (np.sqrt(v[i] * scale_v) + small)
