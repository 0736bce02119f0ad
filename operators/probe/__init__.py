"""Look-ups of the id log compiled by numba: loaded by `operators.dedupe_compiled` only."""
