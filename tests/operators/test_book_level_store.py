from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.book_integral import Change
from operators.book_level_store import US_PER_DAY, LevelStore, Series
from operators.book_limit import OVERFLOW

DAYS = 6
GROUPS = (("m", "a"), ("m", "b"), ("n", "a"))


def change(random: Random, number: int) -> Change:
    time_us = random.randrange(-2 * US_PER_DAY, (DAYS - 2) * US_PER_DAY, 1_800_000_000)
    level = random.choice([0, 1, -1, 10**30 - 1, -(10**30) + 1])
    return Change(time_us, random.randrange(10**13), 3, number, 0, level, number << 64 | random.getrandbits(64))


def plain(store: LevelStore) -> dict[Series, list[Change]]:
    return {
        (*group, dimensions): list(changes)
        for group, held in store.groups.items()
        for dimensions, changes in held.items()
    }


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_store_equals_lists_and_comes_back_from_its_bytes(seed: int) -> None:
    random = Random(seed)
    store, naive = LevelStore(), dict[Series, list[Change]]()
    for number in range(random.randint(0, 60)):
        series = (*random.choice(GROUPS), random.choice(["{}", "x"]))
        held = naive.get(series, [])
        action = random.randint(0, 5)
        if action <= 2 or not held:
            made = change(random, number)
            naive[series] = sorted([*held, made])
            store.add(series, made)
        elif action == 3:
            gone = random.choice(held)
            naive[series] = [each for each in held if each != gone]
            store.remove(series, gone)
        elif action == 4:
            count = random.randint(0, len(held) - 1)
            naive[series] = [held[count]._replace(is_settled=True), *held[count + 1 :]]
            store.settle(series, count)
        else:
            naive[series] = []
            store.drop(series)
        naive = {each: changes for each, changes in naive.items() if changes}
        if random.randint(0, 9) == 0:
            store = LevelStore(store.encode())
    assert plain(store) == plain(LevelStore(store.encode())) == naive
    assert len(store) == sum(map(len, naive.values()))
    for group in GROUPS:
        assert store.count(group) == sum(len(held) for series, held in naive.items() if series[:2] == group)


def test_day_without_a_change_keeps_its_bytes() -> None:
    store = LevelStore()
    for day in range(3):
        store.add(("m", "t", "{}"), Change(day * US_PER_DAY, 0, 0, day, 0, 1, day))
    before = store.encode()
    store.add(("m", "t", "{}"), Change(2 * US_PER_DAY + 5, 0, 0, 9, 0, 1, 9))
    after = store.encode()
    assert before.keys() == after.keys() == {0, 1, 2}
    assert [before[day] is after[day] for day in range(3)] == [True, True, False]
    restored = LevelStore(after)
    assert all(restored.encode()[day] is after[day] for day in range(3))


def test_void_finds_its_change_in_its_own_series_else_in_the_overflow_else_anywhere() -> None:
    store = LevelStore()
    series = ("m", "t", "old")
    made = Change(90_000_000, 0, 0, 0, 0, 1, 77)
    store.add(series, made)
    store.add(("m", "t", OVERFLOW), Change(100_000_000, 0, 0, 0, 0, 1, 78))
    assert store.find(("m", "t", "new"), 60_000_000, 77) == (series, made)
    assert store.find(("m", "t", "new"), 60_000_000, 78) is not None
    # Other minutes, ids and tenants are others.
    assert store.find(series, 120_000_000, 77) is None
    assert store.find(series, 60_000_000, 79) is None
    assert store.find(("m", "u", "old"), 60_000_000, 77) is None


def test_id_that_came_again_means_the_later_one() -> None:
    store = LevelStore()
    first, second = (Change(60_000_000, 0, 0, seq, 0, 1, 77) for seq in (1, 2))
    for each in (first, second):
        store.add(("m", "t", "{}"), each)
    assert store.find(("m", "t", "{}"), 60_000_000, 77) == (("m", "t", "{}"), second)
