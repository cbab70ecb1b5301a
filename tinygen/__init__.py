"""tinygen: every family of generative model, readable, on a minimal autograd engine written by hand."""

from tinygen.tensor import Parameter, Tensor, tensor  # first: everything else is built on it

__all__ = ["Parameter", "Tensor", "tensor"]
