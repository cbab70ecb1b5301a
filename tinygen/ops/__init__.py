"""Every op, by family: `tinygen.ops.exp`, `tinygen.ops.matmul`, with NumPy's names where NumPy has one."""

from tinygen.ops.elementwise import *
from tinygen.ops.reductions import *
from tinygen.ops.shapes import *
from tinygen.ops.indexing import *
from tinygen.ops.linear import *
from tinygen.ops.convolution import *
from tinygen.ops.composite import *
