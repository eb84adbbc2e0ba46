"""What people see in MLflow's UI, in a real browser.

TRIALBOOK_PICTURES=<folder> keeps the pictures; TRIALBOOK_STUDY=<folder> looks at the study there (searched, compared,
promoted) instead of a small one of its own. Both together make those of the README:

    TRIALBOOK_STUDY=. TRIALBOOK_PICTURES=docs/pictures pytest -m browser
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.comparison import saved_study
from src.comparison.saved_study import SavedStudy
from src.tracking import recorders, run_tree, ui_views
from src.tracking.store import TrackingStore
from src.verdict.records import load_verdict
from tests.support.browser import CHROMIUM, Browser, browser, mlflow_ui
from tests.support.commands import Place, client_of, trials_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"),
]


GIVEN = os.environ.get("TRIALBOOK_STUDY")
PICTURES = Path(os.environ.get("TRIALBOOK_PICTURES", "")).resolve()  # before anybody goes to another folder


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    """Where a study has been searched, compared and promoted."""
    if GIVEN:
        return Place(Path(GIVEN).resolve())
    studied_place: Place = request.getfixturevalue("judged")[0]
    done = studied_place.run("src.promote")
    assert done.code == 0, done.err
    return studied_place


@pytest.fixture(scope="module")
def tab(place: Place) -> Iterator[Browser]:
    with mlflow_ui(place.folder) as address, browser(address) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return PICTURES if "TRIALBOOK_PICTURES" in os.environ else tmp_path


@pytest.fixture
def saved(place: Place, monkeypatch: pytest.MonkeyPatch) -> SavedStudy:
    from src.core.paths import Paths

    monkeypatch.chdir(place.folder)
    return saved_study.load_study(None, Paths(place.folder))


@pytest.fixture
def name(saved: SavedStudy) -> str:
    return saved.name


@pytest.fixture
def store(place: Place, saved: SavedStudy) -> TrackingStore:
    experiment = client_of(place).get_experiment_by_name(saved.settings.tracking.experiment)
    return TrackingStore(f"sqlite:///{place.folder}/mlflow.db", experiment.experiment_id)


def runs_page(store: TrackingStore) -> str:
    return f"#/experiments/{store.experiment_id}/runs"


def test_a_study_is_one_run_with_its_trials_below_it(
    tab: Browser, store: TrackingStore, name: str, pictures: Path
) -> None:
    page = tab.open(f"{runs_page(store)}?workflowType=machine_learning")
    tab.shows(name)
    assert page.get_by_text("trial-0000", exact=True).count() == 0
    row = page.get_by_role("row").filter(has_text=name)
    row.get_by_role("button").first.click()
    for below in ("trial-0000", "baseline-majority", "contender-default"):
        tab.shows(below)
    tab.picture(pictures / "nested.png")


def test_the_view_of_a_study_shows_what_was_searched_and_the_score(
    tab: Browser, place: Place, store: TrackingStore, saved: SavedStudy, pictures: Path
) -> None:
    """The best trial first; the link is what the sweep printed."""
    link = ui_views.view_path(store, recorders.trials_view_key(saved.study))
    page = tab.open(link)
    tab.shows(f"{saved.name}: trials")
    trials = trials_of(place, saved.name)
    best = max((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: (t.value, -t.number))
    tab.shows(f"trial-{best.number:04d}")
    names = page.get_by_text(re.compile(r"^trial-\d{4}$")).all_inner_texts()
    assert len(set(names)) == len(trials)
    heads = " ".join(page.get_by_role("columnheader").all_inner_texts())
    assert "score" in heads
    assert "learning_rate" in heads
    tab.picture(pictures / "trials.png")


def test_curves_of_trials_lie_over_each_other(
    tab: Browser, store: TrackingStore, saved: SavedStudy, pictures: Path
) -> None:
    page = tab.open(f"{ui_views.view_path(store, recorders.trials_view_key(saved.study))}&compareRunsMode=CHART")
    tab.shows(f"{saved.name}: trials")
    page.get_by_placeholder("Search metric charts").fill("train/loss")
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for(state="visible")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .trace').length >= 3")
    tab.picture(pictures / "curves.png")


def test_report_and_card_are_rendered(tab: Browser, store: TrackingStore, saved: SavedStudy, pictures: Path) -> None:
    run = run_tree.study_run(saved.study).known_run_id
    page = tab.open(f"{runs_page(store)}/{run}/artifacts/report/report.html")
    frame = page.frame_locator("iframe").first
    frame.get_by_role("heading", name=saved.name).first.wait_for(state="visible")
    assert frame.locator("svg, img").count() >= 2
    tab.picture(pictures / "report.png")
    page = tab.open(f"{runs_page(store)}/{run}/artifacts/card/README.md")
    page.get_by_text(re.compile("fresh seeds")).first.wait_for(state="visible")


def test_the_registered_model_says_who_is_champion_and_why(tab: Browser, saved: SavedStudy, pictures: Path) -> None:
    verdict = load_verdict(saved.comparison_dir)
    assert verdict is not None
    page = tab.open(f"#/models/{verdict.registry}")
    tab.shows("Version 1")
    for alias in ("champion", "challenger"):
        page.get_by_text(re.compile(rf"{alias}$")).first.wait_for(state="visible")
    assert page.get_by_text(re.compile("^verdict")).first.is_visible()
    page = tab.open(f"#/models/{verdict.registry}/versions/1")
    page.get_by_text(re.compile(f"Verdict on {saved.name}")).first.wait_for(state="visible")
    tab.picture(pictures / "champion.png")
