"""How ops call their Numba kernels: what `tinygen.dispatch` lists for NumPy arrays, one file per family of ops.

Each op has three functions, with the signatures of `dispatch.Kernel`. They turn an op's view of its arrays (any shape,
any strides, operands left out) into a kernel's (contiguous matrices of float32), and cut large work into pieces for
the threads to share.
"""
