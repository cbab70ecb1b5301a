"""Binary cross-entropy under logits, element by element in one pass: loss = log(1 + e^x) - x y, with a target y.

    dL/dx = g (s(x) - y),    dL/dy = -g x

Memory: forward reads x and y and writes the loss, 12 bytes an element; backward reads g, x and y and writes dL/dx, 16.
Operations: about 30 and 22 an element, in `elementary.softplus` and `elementary.sigmoid`.
"""

from .compiling import kernel
from .elementary import sigmoid, softplus


@kernel
def binary_cross_entropy_forward(x, y, out):
    """Logits x, targets y and the loss `out`, all (elements,) float32."""
    for i in range(x.size):
        out[i] = softplus(x[i]) - x[i] * y[i]


@kernel
def binary_cross_entropy_backward(g, x, y, out):
    """out = g (s(x) - y), all (elements,) float32."""
    for i in range(x.size):
        out[i] = g[i] * (sigmoid(x[i]) - y[i])
