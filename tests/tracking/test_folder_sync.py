"""Folders that travel between machines: whole or not at all, and only what has changed."""

import shutil
from pathlib import Path

import pytest

from src.config.settings import TrackingSettings
from src.tracking import folder_sync
from src.tracking.folder_sync import FolderSync
from src.tracking.store import TrackingStore, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> TrackingStore:
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder)
    return open_store(TrackingSettings(f"sqlite:///{folder}/mlflow.db", "reviews"), folder)


@pytest.fixture
def folders(store: TrackingStore, tmp_path: Path) -> FolderSync:
    return FolderSync(store, tmp_path.name)


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_a_folder_arrives_as_it_was_sent_and_again_as_it_has_become(folders: FolderSync, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert not folders.download(there, "trials/0001/training")
    assert not there.exists()
    write(here, a="1", checkpoint__progress="old", checkpoint__weights="w" * 100)
    write(here, **{"study.lock": "not sent"})
    folders.upload(here, "trials/0001/training")
    assert folders.download(there, "trials/0001/training")
    assert files_of(there) == {"a": "1", "checkpoint/progress": "old", "checkpoint/weights": "w" * 100}
    write(here, checkpoint__progress="new and longer", b="2")
    (here / "a").unlink()
    folders.upload(here, "trials/0001/training")
    write(there, left="by a process that was killed")
    assert folders.download(there, "trials/0001/training")
    assert files_of(there) == {"checkpoint/progress": "new and longer", "checkpoint/weights": "w" * 100, "b": "2"}
    assert folders.list_names("trials/0001") == ["trials/0001/training"]
    folders.delete("trials/0001/training")
    assert not folders.download(there, "trials/0001/training")


def test_what_has_not_changed_is_not_sent_again(folders: FolderSync, tmp_path: Path) -> None:
    here = write(tmp_path / "here", a="1", b="2")
    folders.upload(here, "x")
    kept = Path(folders._artifacts.artifact_dir)
    sent = {f: f.stat().st_mtime_ns for f in kept.rglob("a")}
    assert len(sent) == 1
    there = tmp_path / "there"
    folders.download(there, "x")
    write(there, b="changed")
    folders.upload(there, "x")  # another machine's copy: the same file is known to be the same
    assert {f: f.stat().st_mtime_ns for f in kept.rglob("a")} == sent
    assert [f.read_text() for f in kept.rglob("b")] == ["changed"]


def test_a_folder_cut_while_it_is_sent_stays_what_it_was(
    folders: FolderSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = write(tmp_path / "here", a="1", b="2")
    folders.upload(here, "x")
    write(here, a="one", b="two")
    monkeypatch.setattr(folder_sync, "MANIFEST", "no/such/place")  # the last thing to be written cannot be
    with pytest.raises(OSError, match=r"no.such|artifacts"):
        folders.upload(here, "x")
    monkeypatch.undo()
    assert folders.download(tmp_path / "there", "x")
    assert files_of(tmp_path / "there") == {"a": "1", "b": "2"}
