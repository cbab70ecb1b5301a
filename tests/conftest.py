"""Settings of the whole suite: pictures without a window, and hypothesis without deadlines (first calls compile)."""

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("tinygen", deadline=None, max_examples=50)
settings.register_profile("ci", parent=settings.get_profile("tinygen"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "tinygen")
