"""The learning path: one idea a file, trained, measured and drawn. `python -m demos` lists them."""
