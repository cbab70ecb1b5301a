"""Numba kernels: plain functions that take contiguous NumPy arrays and write their result into arrays.

They know nothing of tensors or gradients. Whoever calls them has checked shapes, dtypes, contiguity and the range of
indices: a kernel checks nothing. Importing a kernel module imports Numba, so only the table that picks kernels does it.
"""
