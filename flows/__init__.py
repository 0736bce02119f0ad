"""The wiring: how steps, sources and sinks become a dataflow, and how it runs."""
