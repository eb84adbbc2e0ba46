"""MLflow's UI in a real browser: Debian's Chromium, headless, driven by Playwright; and pictures of what it shows."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.support.servers import free_port, start, stop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZE = {"width": 1440, "height": 900}


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """`mlflow ui` on the store in `folder`; its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = start(address, command, {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db"})
    try:
        yield address
    finally:
        stop(process)


@dataclass(frozen=True)
class Browser:
    """One tab, and the address of the UI in it."""

    page: Page
    address: str

    def open(self, path: str) -> Page:
        """Go to a page of the UI, below its address."""
        self.page.goto("about:blank")  # an address that differs behind the # alone would not be loaded anew
        self.page.goto(f"{self.address}/{path}")
        return self.page

    def shows(self, text: str) -> None:
        """Wait until `text` can be seen."""
        self.page.get_by_text(text, exact=True).first.wait_for(state="visible")

    def picture(self, file: Path) -> None:
        """Of the whole window, but for MLflow's assistant, which opens by itself at the right."""
        file.parent.mkdir(parents=True, exist_ok=True)
        panel = self.page.get_by_text("MLflow Assistant").first
        with suppress(PlaywrightTimeout):  # it comes late, or not at all
            panel.wait_for(state="visible", timeout=5000)
        box = panel.bounding_box() if panel.is_visible() else None
        width = box["x"] - 60 if box else SIZE["width"]
        self.page.screenshot(path=file, clip={"x": 0, "y": 0, "width": width, "height": SIZE["height"]})


@contextmanager
def browser(address: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--force-color-profile=srgb", "--hide-scrollbars"]
        )
        page = chromium.new_page(viewport=SIZE, color_scheme="light")
        page.on("dialog", lambda dialog: dialog.dismiss())
        page.set_default_timeout(30_000)
        yield Browser(page, address)
        chromium.close()
