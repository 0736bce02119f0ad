"""Compiled reading of plain events: from bytes to columns without a Python object per event (docs/adr/0033)."""
