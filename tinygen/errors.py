"""The errors that tinygen raises on purpose: each carries one paragraph that a person can act on."""


class TinygenError(Exception):
    """Something went wrong that the message explains: what, where, and what to do about it.

    `line` (the caller's file and line) and `module` (the path of the layer, filled in by each `Module` as the error
    passes through it) say where, and are printed behind the message once known.
    """

    line: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.line, self.module)))
        return f"{super().__str__()} ({where})" if where else super().__str__()


class InputError(TinygenError, ValueError):
    """A value, shape, option or file that tinygen was given cannot be used."""


class ShapeError(InputError):
    """Shapes do not fit together."""


class DtypeError(TinygenError, TypeError):
    """A dtype that an op cannot work with, or a mix that would widen silently."""


class DeviceError(TinygenError, RuntimeError):
    """A device that is not there, or arrays on different ones."""


class GraphError(TinygenError, RuntimeError):
    """The recorded graph cannot give the gradient that was asked for."""


class MutationError(GraphError):
    """Memory that backward still needed was written to."""


class NonFiniteError(TinygenError, FloatingPointError):
    """A NaN or an infinity appeared while `detect_anomaly()` was watching."""


class GradientError(TinygenError, AssertionError):
    """A gradient disagrees with finite differences."""
