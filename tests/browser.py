"""A headless Chromium for the tests of pages; where none is installed, they are skipped."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page that needs the network fails here, also where there is one.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


@pytest.fixture
def browser(chromium: "Chrome") -> "Chrome":
    """A selenium driver with an empty page: what the last test's page still says is not heard."""
    chromium.get("about:blank")
    complaints(chromium)
    return chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Chrome"]:
    """The driver that the tests of a process share."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    # Chromium's own sandbox does not start for root.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    for flag in (*FLAGS, *sandbox, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    started.set_page_load_timeout(60)
    yield started
    started.quit()


def complaints(browser: "Chrome") -> list[str]:
    """What the console of the page has said since the last call: errors, refused or missing resources."""
    return [entry["message"] for entry in browser.get_log("browser")]


def screenshot(
    browser: "Chrome",
    path: Path,
    width: int = 1280,
    height: int = 800,
    *,
    dark: bool = False,
    touch: bool = False,
) -> None:
    """Takes a picture of the page in a window of a given size, in light or dark colours.

    Args:
        browser: The driver, with a page open.
        path: The PNG to write.
        width: Of the page in CSS pixels; 390 is a phone.
        height: Of the page in CSS pixels.
        dark: What the page is told of the reader's preference.
        touch: Whether the page is told of a finger instead of a mouse.
    """
    show_as(browser, width, height, dark=dark, touch=touch)
    browser.save_screenshot(str(path))


def show_as(browser: "Chrome", width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
    """Gives the page a size, a preference of colours and a pointing device; see `screenshot`."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
