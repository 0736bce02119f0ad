"""The garbage collector: what is loaded once is not looked at again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Pause the collector while modules load, and keep it off what is there at the end.

    Modules are hundreds of thousands of objects that live as long as the process. Without this, loading them sets off
    hundreds of collections, each full one walks over all of them, and so does the one at the end of the process: half
    of the processor time of a start and an end.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
