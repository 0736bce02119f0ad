"""Questions people ask of the stores: traces, reconciliation, exceptions. Reads only; used by the CLI and the API."""
