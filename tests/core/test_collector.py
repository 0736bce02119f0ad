"""The collector is off while modules load, on again afterwards, and leaves what was there alone."""

import gc
import weakref

import pytest

from core.collector import loading


class Cyclic:
    def __init__(self) -> None:
        self.me = self


def test_it_is_off_inside_and_as_before_behind() -> None:
    assert gc.isenabled()
    with loading():
        assert not gc.isenabled()
        with loading():
            assert not gc.isenabled()
        assert not gc.isenabled(), "an inner one does not end the outer one's pause"
    assert gc.isenabled()


def test_it_is_on_again_after_a_failure() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()


def test_what_was_loaded_stays_and_what_comes_later_is_collected() -> None:
    with loading():
        kept = weakref.ref(Cyclic())
    later = weakref.ref(Cyclic())
    gc.collect()
    assert kept() is not None
    assert later() is None
    gc.unfreeze()
    gc.collect()
    assert kept() is None
