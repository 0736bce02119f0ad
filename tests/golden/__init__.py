"""State directories of earlier releases, made by `python -m tests.golden.make` and kept."""
