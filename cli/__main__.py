"""`python -m cli` is `meterbridge`."""

from cli.main import main

main()
