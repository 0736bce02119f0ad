"""Entry of `python -m tests.simulation`."""

from tests.simulation.campaign import main

if __name__ == "__main__":
    main()
