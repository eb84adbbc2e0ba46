"""What a study is called by, where names come from files."""

from pathlib import Path
from typing import cast

import pytest

from src.comparison.saved_study import SavedStudy
from src.config.reader import REGISTERED_NAME
from src.core.paths import Paths
from src.search.study import Study
from tests.support.data import settings_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("reviews.csv", "reviews"),
        ("data/my reviews (2).csv.gz", "my-reviews-(2)"),
        ("отзывы.csv", "отзывы"),
        ("评论.jsonl", "评论"),
        ("评价.jsonl", "评价"),
        ("a/folder of files", "folder-of-files"),
        ("a:b.csv", "a-b"),
        ("...csv", "files"),
    ],
)
def test_registered_models_are_named_like_the_file_in_any_script(tmp_path: Path, path: str, name: str) -> None:
    settings = settings_of("data=files", f"data.path='{path}'")
    saved = SavedStudy(settings, cast("Study", None), Paths(tmp_path))
    assert saved.registered_model == name
    assert REGISTERED_NAME.fullmatch(name)
    assert saved.data_source == path


def test_data_of_the_hub_lend_their_own_name(tmp_path: Path) -> None:
    saved = SavedStudy(settings_of("data=sst2"), cast("Study", None), Paths(tmp_path))
    assert (saved.registered_model, saved.data_source) == ("sst2", "stanfordnlp/sst2")
