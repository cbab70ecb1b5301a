"""Matrix products and linear algebra over the last two axes, broadcasting over the rest."""

from __future__ import annotations

from tinygen.arrays import xp
from tinygen.registry import op
