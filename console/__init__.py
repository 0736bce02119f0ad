"""The service behind `meterbridge serve`: the API under /api/v1 and the web console under /."""
