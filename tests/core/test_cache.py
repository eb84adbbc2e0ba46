"""Caches are made once, and again if one of their files was damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src.core import cache


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_intact", set())


def maker(made: list[Path]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(b"content")
        (folder / "b.json").write_text("{}")

    return make


@pytest.mark.parametrize(
    ("file", "content"),
    [("deep/a.bin", b""), ("deep/a.bin", bytes(7)), ("deep/a.bin", None), ("b.json", b"{"), (cache.MANIFEST, b"{")],
)
def test_a_damaged_cache_is_made_again(
    tmp_path: Path,
    file: str,
    content: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[Path] = []
    folder = cache.make_once(tmp_path / "cache", maker(made))
    assert cache.make_once(folder, maker(made)) == folder
    assert len(made) == 1
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    monkeypatch.setattr(cache, "_intact", set())
    cache.make_once(folder, maker(made))
    assert len(made) == 2
    assert (folder / "deep" / "a.bin").read_bytes() == b"content"
    assert f"the cache {folder} was damaged; it is made again." in capsys.readouterr().err


def test_a_cache_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    made: list[Path] = []
    cache.make_once(tmp_path / "cache", maker(made))
    assert made == []
