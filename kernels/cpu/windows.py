"""How a window moves over an image, as the loops of convolution and pooling need it: numbers only.

A geometry is (H, W, C, I, J, KH, KW, c, sh, sw, dh, dw, top, left): image, steps, window, channels of a group, strides,
dilations, and the zeros that stand before the image.
"""

from .compiling import kernel


def geometry_of(image, channels, win, groups):
    """The geometry of `win`, a tinygen.ops.windows.Window, on an (H, W) image of so many channels."""
    before = [p[0] for p in win.pads]
    return (*image, channels, *win.steps, *win.size, channels // groups, *win.stride, *win.dilation, *before)


@kernel
def steps_inside(geometry, b):
    """The first step of a line at which place b of the kernel lies on the image, and the first that follows."""
    W, J, sw, dw, left = geometry[1], geometry[4], geometry[9], geometry[11], geometry[13]
    first = max(0, -((b * dw - left) // sw))
    end = min(J, (W - 1 - b * dw + left) // sw + 1)
    return (first, end) if first < end else (J, J)
