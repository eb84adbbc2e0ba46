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

from src import mirror
from src.evidence import views
from src.evidence.store import Store
from src.runner import studies
from src.runner.studies import Studied
from src.verdict.record import recorded
from tests.browser import CHROMIUM, Browser, browser, mlflow_ui
from tests.conftest import Place, client_of, trials_of

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
    made: Place = request.getfixturevalue("judged")[0]
    done = made.run("src.promote")
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="module")
def tab(place: Place) -> Iterator[Browser]:
    with mlflow_ui(place.folder) as address, browser(address) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return PICTURES if "TRIALBOOK_PICTURES" in os.environ else tmp_path


@pytest.fixture
def studied(place: Place, monkeypatch: pytest.MonkeyPatch) -> Studied:
    from src.paths import Paths

    monkeypatch.chdir(place.folder)
    return studies.load(None, Paths(place.folder))


@pytest.fixture
def name(studied: Studied) -> str:
    return studied.name


@pytest.fixture
def store(place: Place, studied: Studied) -> Store:
    experiment = client_of(place).get_experiment_by_name(studied.settings.tracking.experiment)
    return Store(f"sqlite:///{place.folder}/mlflow.db", experiment.experiment_id)


def runs_page(store: Store) -> str:
    return f"#/experiments/{store.experiment_id}/runs"


def test_a_study_is_one_run_with_its_trials_below_it(tab: Browser, store: Store, name: str, pictures: Path) -> None:
    page = tab.open(f"{runs_page(store)}?workflowType=machine_learning")
    tab.shows(name)
    assert page.get_by_text("trial-0000", exact=True).count() == 0
    row = page.get_by_role("row").filter(has_text=name)
    row.get_by_role("button").first.click()
    for below in ("trial-0000", "baseline-majority", "contender-default"):
        tab.shows(below)
    tab.picture(pictures / "nested.png")


def test_the_view_of_a_study_shows_what_was_searched_and_the_score(
    tab: Browser, place: Place, store: Store, studied: Studied, pictures: Path
) -> None:
    """The best trial first; the link is what the sweep printed."""
    link = views.path(store, mirror.view_of(studied.book))
    page = tab.open(link)
    tab.shows(f"{studied.name}: trials")
    trials = trials_of(place, studied.name)
    best = max((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: (t.value, -t.number))
    tab.shows(f"trial-{best.number:04d}")
    names = page.get_by_text(re.compile(r"^trial-\d{4}$")).all_inner_texts()
    assert len(set(names)) == len(trials)
    heads = " ".join(page.get_by_role("columnheader").all_inner_texts())
    assert "score" in heads
    assert "learning_rate" in heads
    tab.picture(pictures / "trials.png")


def test_curves_of_trials_lie_over_each_other(tab: Browser, store: Store, studied: Studied, pictures: Path) -> None:
    page = tab.open(f"{views.path(store, mirror.view_of(studied.book))}&compareRunsMode=CHART")
    tab.shows(f"{studied.name}: trials")
    page.get_by_placeholder("Search metric charts").fill("train/loss")
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for(state="visible")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .trace').length >= 3")
    tab.picture(pictures / "curves.png")


def test_report_and_card_are_rendered(tab: Browser, store: Store, studied: Studied, pictures: Path) -> None:
    run = mirror.study_run(studied.book).known_id
    page = tab.open(f"{runs_page(store)}/{run}/artifacts/report/report.html")
    frame = page.frame_locator("iframe").first
    frame.get_by_role("heading", name=studied.name).first.wait_for(state="visible")
    assert frame.locator("svg, img").count() >= 2
    tab.picture(pictures / "report.png")
    page = tab.open(f"{runs_page(store)}/{run}/artifacts/card/README.md")
    page.get_by_text(re.compile("fresh seeds")).first.wait_for(state="visible")


def test_the_registered_model_says_who_is_champion_and_why(tab: Browser, studied: Studied, pictures: Path) -> None:
    verdict = recorded(studied.folder)
    assert verdict is not None
    page = tab.open(f"#/models/{verdict.registry}")
    tab.shows("Version 1")
    for alias in ("champion", "challenger"):
        page.get_by_text(re.compile(rf"{alias}$")).first.wait_for(state="visible")
    assert page.get_by_text(re.compile("^verdict")).first.is_visible()
    page = tab.open(f"#/models/{verdict.registry}/versions/1")
    page.get_by_text(re.compile(f"Verdict on {studied.name}")).first.wait_for(state="visible")
    tab.picture(pictures / "champion.png")
