"""Compiled code is kept apart for every version of the sources."""

from pathlib import Path

from numba import config

from core.compiled_code import keep_in


def test_other_sources_are_kept_elsewhere_and_the_same_ones_in_the_same_place(tmp_path: Path) -> None:
    before = config.CACHE_DIR
    package = tmp_path / "package"
    package.mkdir()
    kept = []
    try:
        for text in ("one", "two", "one"):
            (package / "kernels.py").write_text(text)
            keep_in(tmp_path / "compiled", package, "not.imported")
            kept.append(Path(config.CACHE_DIR))
    finally:
        config.CACHE_DIR = before
    assert kept[0] == kept[2] != kept[1]
    assert all(path.is_dir() and path.parent == tmp_path / "compiled" for path in kept)


def test_what_is_loaded_stays_where_it_is(tmp_path: Path) -> None:
    before = config.CACHE_DIR
    keep_in(tmp_path / "compiled", tmp_path, "core.compiled_code")
    assert before == config.CACHE_DIR
    assert not (tmp_path / "compiled").exists()
