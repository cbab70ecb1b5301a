"""Every op, by family: `tinygen.ops.exp`, `tinygen.ops.matmul`, with NumPy's names where NumPy has one."""

from tinygen.ops.elementwise import *
from tinygen.ops.reductions import *
from tinygen.ops.shapes import *
from tinygen.ops.indexing import *
from tinygen.ops.linear import *
from tinygen.ops.convolution import *
from tinygen.ops.pooling import *
from tinygen.ops.embeddings import *
from tinygen.ops.logits import *
from tinygen.ops.activations import *
from tinygen.ops.normalisation import *
from tinygen.ops.attention import *
from tinygen.ops.randomness import *
