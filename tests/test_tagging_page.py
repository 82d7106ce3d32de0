"""The tagging page: what its server answers, to whom, and what a person sees and presses in a browser."""

import asyncio
import csv
import http.client
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from ome.data.suggestions import write_suggestions
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.pipeline.locks import locked
from ome.tagging import main
from ome.tagging import server as server_module
from ome.tagging.items import find_images
from ome.tagging.pictures import Pictures
from tests.browser import complaints, show_as
from tests.tagging import Server, serving, write_images

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

COUNT = 6
DAMAGED = 5
BEFORE = "before must have tags, a list of names, and a status"
LISTED = "tags must be a list of names, and none true or false"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, of which the last is damaged and the first two have suggestions, and a file beside them."""
    folder = write_images(tmp_path_factory.mktemp("tagging") / "fields <b>", COUNT)
    (folder / f"field_{DAMAGED}.jpg").write_bytes(b"no image")
    (folder / "secret.txt").write_text("for nobody")
    rows = [
        (Tile("field_0", 0, 0, 40, 56), 0.3, (0.9, 0.1, 0.6)),
        (Tile("field_1", 0, 0, 40, 56), 0.8, (0.4, 0.5, 0.2)),
    ]
    write_suggestions(folder.parent / "suggestions.csv", ["road", "tree", "lake"], rows)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(str(folder), "--suggestions", str(folder.parent / "suggestions.csv")) as running:
        yield running


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """The table as any program reads it."""
    with (folder / "tags.csv").open(newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


# Who may ask


def test_only_this_machine_and_this_page_are_answered(server: Server) -> None:
    assert server.ask("GET", "/").status == 200
    assert server.ask("GET", "/", Host=f"localhost:{server.port}").status == 200
    # Another name that leads here, as in DNS rebinding.
    assert server.ask("GET", "/api/session", Host=f"evil.example:{server.port}").status == 400
    assert server.ask("GET", "/api/session", Host="127.0.0.1.evil.example").status == 400
    change = {"tags": ["road"]}
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{server.port + 1}",
        "http://localhost",
        "http://[",
    ):
        assert server.ask("PUT", "/api/tags/0", change, Origin=origin).status == 403
        assert server.ask("GET", "/api/session", Origin=origin).status == 403
    for site in ("cross-site", "same-site"):
        assert server.ask("PUT", "/api/tags/0", change, Sec_Fetch_Site=site).status == 403
        assert server.ask("GET", "/api/pictures/0", Sec_Fetch_Site=site, Sec_Fetch_Dest="image").status == 403
    # A form of another page can send this type without asking; the right one it cannot.
    assert server.ask("PUT", "/api/tags/0", change, Content_Type="text/plain").status == 422
    assert server.ask("POST", "/api/undo", {}, Content_Type="text/plain").status == 422
    assert server.ask("GET", "/api/session").json["undo"] == 0
    # A link to the page is no request of the other page's.
    opened = server.ask("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    assert opened.status == 200
    assert "default-src 'none'" in opened.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in opened.headers["content-security-policy"]
    assert "access-control-allow-origin" not in opened.headers
    preflight = server.ask("OPTIONS", "/api/tags/0", Origin="https://evil.example")
    assert preflight.status == 403


def test_nothing_listens_on_other_addresses(server: Server) -> None:
    with socket.socket() as outside:
        outside.settimeout(2)
        # Loopback has more addresses than one, and the socket is bound to that one alone.
        assert outside.connect_ex(("127.0.0.2", server.port)) != 0


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/..%2f..%2fsecret.txt",
        "/%2e%2e/server.py",
        "/..%5cserver.py",
        "//etc/passwd",
        "/api/pictures/..%2fsecret.txt",
        "/api/pictures/secret.txt",
        "/api/pictures/-1",
        "/tags.csv",
    ],
)
def test_no_path_leads_out_of_the_page(server: Server, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 404
    assert b"nobody" not in answer.content
    assert b"import" not in answer.content


# What is answered


def test_pictures_are_those_of_the_folder(server: Server, folder: Path) -> None:
    items = server.ask("GET", "/api/session").json["items"]
    assert [item["title"] for item in items[:3]] == ["field_1.png", "field_0.tif", "field_2.jpg"]
    answer = server.ask("GET", "/" + items[0]["picture"])
    assert answer.headers["content-type"] == "image/jpeg"
    (folder.parent / "answer.jpg").write_bytes(answer.content)
    with Image.open(folder.parent / "answer.jpg") as image:
        difference = np.asarray(image).astype(int) - Pictures().pixels(find_images(folder)[1])
    assert np.abs(difference).mean() < 8  # noise, as JPEG
    damaged = server.ask("GET", f"/api/pictures/{DAMAGED}")
    assert damaged.status == 422
    assert "field_5.jpg is damaged or not a raster (GTiff, PNG, JPEG): download it again" in damaged.text
    assert server.ask("GET", f"/api/pictures/{COUNT}").text == f"unknown item {COUNT}"


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("PUT", "/api/tags/99", {"tags": []}, "unknown item 99"),
        ("PUT", f"/api/tags/{'9' * 5000}", {"tags": []}, f"unknown item {'9' * 20}"),
        ("PUT", "/api/tags/0", b"[" * 60_000, "the request is not JSON"),
        ("PUT", "/api/tags/0", b'{"tags": ' + b"9" * 5000 + b"}", "the request is not JSON"),
        ("PUT", "/api/tags/0", {"tags": ["moon"]}, "'moon' is not a class; the classes are road, tree, lake"),
        ("PUT", "/api/tags/0", {"tags": "road"}, LISTED),
        *(
            ("PUT", "/api/tags/0", body, LISTED)
            for body in ({}, {"tag": ["road"]}, {"none": True}, {"tags": None}, {"tags": [1]}, {"tags": {}})
        ),
        *(
            ("PUT", "/api/tags/0", {"tags": [], "none": none}, LISTED)
            for none in ("false", 0, 1, None, [], {})
        ),
        *(
            ("PUT", "/api/tags/0", {"tags": [], "before": before}, BEFORE)
            for before in ([], {}, {"tags": []}, {"tags": [1], "status": "open"}, {"tags": [], "status": []})
        ),
        ("PUT", "/api/tags/0", ["road"], "the request must be a JSON object"),
        ("PUT", "/api/tags/0", {"tags": ["x" * 70_000]}, "the request is larger than 65536 bytes"),
        (
            "POST",
            "/api/classes",
            b'{"name": "\\ud800"}',
            "the class '\\ud800' has '\\ud800' in it: give it another name",
        ),
        *(
            (method, "/api/classes", body, "name must be a text")
            for method in ("POST", "DELETE")
            for body in (
                {},
                {"name": None},
                {"name": True},
                {"name": 1.0},
                {"name": ["a"]},
                {"name": {"a": 1}},
            )
        ),
        ("POST", "/api/classes", {"name": ""}, "the class '' is empty: give it another name"),
        (
            "POST",
            "/api/classes",
            {"name": "a\u202e"},
            "the class 'a\\u202e' has the invisible character U+202E in it: give it another name",
        ),
        ("DELETE", "/api/classes", {"name": "moon"}, "unknown class 'moon'"),
    ],
)
def test_wrong_requests_change_nothing(
    server: Server, method: str, path: str, body: object, message: str
) -> None:
    answer = server.ask(method, path, body)
    assert answer.status == 422
    assert answer.text == message
    assert server.ask("GET", "/api/session").json["undo"] == 0


def test_a_page_that_goes_away_within_a_request_is_no_fault(tmp_path: Path) -> None:
    with serving(str(write_images(tmp_path / "fields", 1)), "--classes", "road") as running:
        with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
            connection.sendall(
                f"PUT /api/tags/0 HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
                'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"tags'.encode()
            )
            assert running.ask("GET", "/api/session").status == 200  # answered after that request began
        assert running.ask("GET", "/api/session").json["undo"] == 0
        running.process.send_signal(signal.SIGINT)
        assert running.process.stdout is not None
        assert "Traceback" not in running.process.stdout.read()


def test_a_request_that_sends_less_than_it_announces_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> dict[str, object]:
        await asyncio.sleep(0 if (first := not parts) else 60)
        parts.append(b'{"tags')
        return {"type": "http.request", "body": parts[-1] if first else b"", "more_body": True}

    parts: list[bytes] = []
    monkeypatch.setattr(server_module, "MAX_WAIT", 0.2)
    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(UserError, match=r"did not arrive whole within 0\.2 seconds"):
        asyncio.run(server_module._body(request))


def test_a_second_server_on_the_same_table_is_refused(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--port", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "error: another process is working on" in lines[0]
    other = ["--table", str(folder.parent / "other.csv"), "--port", str(server.port)]
    assert main([str(folder), *other]) == 1
    assert f"cannot use port {server.port}" in capsys.readouterr().out


# In a browser


class Page:
    """What a person does with the page, and what is there to see."""

    def __init__(self, browser: "Chrome") -> None:
        self._browser = browser

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415

        for key in keys:
            ActionChains(self._browser).send_keys(key).perform()

    def element(self, name: str) -> "WebElement":
        return self._browser.find_element("id", name)

    def wait(self, what: str) -> None:
        """Waits until a JavaScript expression is true."""
        from selenium.webdriver.support.wait import WebDriverWait  # noqa: PLC0415

        WebDriverWait(self._browser, 30).until(lambda browser: browser.execute_script(f"return {what}"), what)

    def saved(self) -> None:
        self.wait("document.getElementById('saved').dataset.state === 'saved'")

    def texts(self, selector: str) -> list[str]:
        """Of all elements at one moment: the page may be drawing them anew."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())"
        return [text for text in self._browser.execute_script(script, selector) if text]

    def on(self) -> list[str]:
        """The classes whose buttons are pressed."""
        return self.texts("#classes [aria-pressed=true] .name")

    def button(self, name: str) -> "WebElement":
        return self._browser.find_element("css selector", f"#classes [data-name='{name}']")

    @property
    def place(self) -> str:
        return self.element("place").text


@pytest.fixture
def page(browser: "Chrome", server: Server) -> Page:
    show_as(browser, 1280, 800)
    complaints(browser)
    browser.get(server.address)
    page = Page(browser)
    page.wait("document.querySelectorAll('#classes button').length > 0")
    while server.ask("GET", "/api/session").json["undo"]:
        server.ask("POST", "/api/undo", {})
    browser.refresh()
    page.wait("document.querySelectorAll('#classes button').length > 0")
    return page


def test_tags_are_set_with_the_keyboard(page: Page, folder: Path, browser: "Chrome") -> None:
    assert page.element("folder").text == "fields <b>"
    assert page.place == f"1 of {COUNT}"
    page.press("1", "3")
    assert page.on() == ["road", "lake"]
    page.press("3", "2")
    page.saved()
    assert page.on() == ["road", "tree"]
    assert page.element("status").text == "tagged"
    assert rows_of(folder) == {
        "field_1.png": {"image": "field_1.png", "split": "train", "road": "1", "tree": "1", "lake": "0"}
    }
    page.press("\ue007")  # Enter
    assert page.place == f"2 of {COUNT}"
    page.press("0")
    page.saved()
    assert page.element("status").text == "none of the classes"
    assert rows_of(folder)["field_0.tif"]["kept"] == "0"
    assert page.element("progress").text == f"1 of {COUNT} tagged, 1 with none"
    page.press("\ue010")  # End
    assert page.place == f"{COUNT} of {COUNT}"
    page.press("n")  # the first that is open, all around
    assert page.place == f"3 of {COUNT}"
    page.press("2", "u", "u", "u")
    page.saved()
    assert page.place == f"1 of {COUNT}"  # where the last of the three was
    assert page.on() == ["road"]
    page.press("r")
    page.saved()
    assert page.on() == ["road", "tree"]
    assert list(rows_of(folder)) == ["field_1.png"]
    browser.refresh()
    page.wait("document.querySelectorAll('#classes button').length > 0")
    assert page.place == f"2 of {COUNT}"  # the first that is open
    # The last image is damaged.
    assert [line for line in complaints(browser) if f"api/pictures/{DAMAGED}?" not in line] == []


def test_an_image_that_another_window_has_changed_is_shown_as_it_is(
    page: Page, server: Server, folder: Path, browser: "Chrome"
) -> None:
    title = page.element("title").text
    place = int(page.place.split()[0]) - 1
    seen = {"tags": [], "status": "open"}
    change = {"tags": ["road"], "before": seen}
    assert server.ask("PUT", f"/api/tags/{place}", change).status == 200  # the other window
    assert server.ask("PUT", f"/api/tags/{place}", {"tags": ["lake"], "before": seen}).status == 409
    page.press("2", "3")  # the second key is of the row that the first was for
    page.wait("document.getElementById('saved').dataset.state === 'failed'")
    page.wait("document.querySelectorAll('#classes [aria-pressed=true]').length === 1")
    assert page.on() == ["road"]
    assert page.element("saved").text == f"Not saved: another window has changed {title}: it is shown anew"
    assert rows_of(folder)[title]["road"] == "1"
    page.press("2", "1")
    page.saved()
    assert page.on() == ["tree"]
    assert [rows_of(folder)[title][name] for name in ("road", "tree", "lake")] == ["0", "1", "0"]
    assert all("409" in line or f"api/pictures/{DAMAGED}?" in line for line in complaints(browser))


def test_suggestions_are_outlined_and_taken(page: Page, folder: Path, browser: "Chrome") -> None:
    assert page.texts("#classes .suggested .name") == ["tree"]
    assert page.texts("#classes .probability") == ["40 %", "50 %", "20 %"]
    assert page.element("doubt").text == "doubt 80 %"
    page.press("\ue014", "s")  # arrow to the right
    page.saved()
    assert page.on() == ["road", "lake"]
    page.press("\ue014")
    assert not page.element("accept").is_displayed()
    assert not page.texts("#classes .suggested")
    assert rows_of(folder)["field_0.tif"]["lake"] == "1"
    assert complaints(browser) == []


def test_a_class_is_added_and_removed_by_name(page: Page, folder: Path) -> None:
    page.press("c", "car", "\ue007")
    page.wait("document.querySelectorAll('#classes button').length === 4")
    page.press("4")
    page.saved()
    assert page.on() == ["car"]
    assert rows_of(folder)["field_1.png"]["car"] == "1"
    page.press("c", "CAR", "\ue007")
    page.wait("!document.getElementById('refused').hidden")
    assert page.element("refused").text == "class car already exists"
    assert page.texts("#unused button") == ["Remove road", "Remove tree", "Remove lake"]
    page.element("unused").find_element("tag name", "button").click()
    page.wait("document.querySelectorAll('#classes button').length === 3")
    page.element("cancel").click()
    assert page.texts("#classes .name") == ["tree", "lake", "car"]
    assert list(rows_of(folder)["field_1.png"]) == ["image", "split", "tree", "lake", "car"]


def test_clicks_and_fingers_do_the_same(page: Page, folder: Path, browser: "Chrome") -> None:
    page.button("tree").click()
    page.element("next").click()
    page.element("none").click()
    page.element("untagged").click()
    page.saved()
    assert page.place == f"3 of {COUNT}"
    show_as(browser, 390, 844, touch=True)
    where = page.button("lake").rect
    point = [{"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait("document.querySelectorAll('#classes [aria-pressed=true]').length === 1")
    page.saved()
    assert {name: row["tree"] + row["lake"] for name, row in rows_of(folder).items()} == {
        "field_1.png": "10",
        "field_0.tif": "00",
        "field_2.jpg": "01",
    }
    page.element("undo").click()
    page.saved()
    assert list(rows_of(folder)) == ["field_1.png", "field_0.tif"]
    # The key is the page's again after a click, and does not press the button a second time.
    page.press("\ue007")
    assert page.place == f"4 of {COUNT}"


def test_cooccurrence_is_shown_while_one_tags(page: Page) -> None:
    assert not page.element("together").is_displayed()
    page.press("1", "2", "\ue014", "1", "\ue014", "1", "3")
    page.saved()
    assert page.texts("#matrix tbody td") == ["100", "33", "33", "100", "100", "0", "100", "0", "100"]
    # A third twice, one twice and nothing twice, over six pairs.
    assert "Mean 44 %" in page.element("mean").text


def test_keys_are_explained_and_an_open_dialog_has_them(page: Page) -> None:
    page.press("?")
    assert page.element("keys").is_displayed()
    page.press("1")
    page.press("\ue00c")  # Escape
    assert not page.element("keys").is_displayed()
    assert page.on() == []


def test_a_damaged_image_is_named_and_can_still_be_passed(page: Page, browser: "Chrome") -> None:
    page.press("\ue010")
    page.wait("document.getElementById('broken').textContent.includes('is damaged')")
    page.press("\ue012")
    page.wait(
        "document.getElementById('broken').hidden && document.getElementById('picture').naturalWidth > 0"
    )
    assert all("422" in line for line in complaints(browser))


CONTRAST = """
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, a = 1] = parts(getComputedStyle(e).backgroundColor);
    if (a === 1) return [r, g, b];
    if (a > 0) return ground(e.parentElement).map((v, i) => v * (1 - a) + a * [r, g, b][i]);
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && !e.closest(':disabled'))
  .map((e) => {
    const [one, two] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
    return [(one + 0.05) / (two + 0.05), e.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
"""
"""Visible texts whose contrast is below what WCAG 2.2 asks for (AA, 1.4.3)."""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 640)])
def test_it_can_be_read_on_every_screen(page: Page, browser: "Chrome", width: int, height: int) -> None:
    page.press("1", "2")
    page.saved()
    for dark in (False, True):
        show_as(browser, width, height, dark=dark, touch=width < 700)
        page.wait(f"innerWidth === {width}")
        page.wait(f"matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}")
        assert browser.execute_script(CONTRAST) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shown = browser.find_elements("css selector", "nav button, #help")
    for button in shown:
        box = button.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert button.accessible_name.strip()
    assert page.element("picture").rect["height"] >= 0.3 * height
    assert page.button("road").rect["height"] >= 40  # large enough for a finger


def test_the_focus_is_seen_and_names_are_said(page: Page, browser: "Chrome") -> None:
    for _ in range(30):
        page.press("\ue004")  # Tab
        focused = browser.switch_to.active_element
        if focused.get_dom_attribute("data-name") == "tree":
            break
    assert focused.value_of_css_property("outline-style") == "solid"
    assert focused.value_of_css_property("outline-width") == "3px"
    page.press(" ")
    page.saved()
    assert page.on() == ["tree"]
    focused = browser.switch_to.active_element
    assert focused.get_dom_attribute("data-name") == "tree"
    assert focused.aria_role == "button"
    assert focused.accessible_name.startswith("tree")
    assert focused.get_dom_attribute("aria-keyshortcuts") == "2"
    assert page.element("announcement").get_attribute("textContent") == "tree on"


# Nothing is lost


def test_what_was_answered_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    answered: dict[int, list[str]] = {}
    sent: tuple[int, list[str]] = (0, [])
    enough = threading.Event()
    with serving(str(images), "--classes", "road,tree") as server:

        def kill() -> None:
            enough.wait(60)
            server.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        choices = [["road"], ["tree"], ["road", "tree"]]
        try:
            for step in range(100_000):
                sent = (step % 2, choices[step % 3])
                answer = server.ask("PUT", f"/api/tags/{sent[0]}", {"tags": sent[1]})
                assert answer.status == 200
                answered[sent[0]] = sent[1]
                if step == 40:
                    enough.set()
        except (OSError, http.client.HTTPException):  # killed before, or within an answer
            pass
        finally:
            enough.set()
            killer.join()
        assert server.process.wait(30) == -signal.SIGKILL
    assert len(answered) == 2
    rows = {int(name[6]): row for name, row in rows_of(images).items()}
    for number, tags in answered.items():
        possible = [tags, sent[1]] if number == sent[0] else [tags]
        assert [name for name in ("road", "tree") if rows[number][name] == "1"] in possible
    with locked(images / ".tags.csv.lock", "the table", wait=False):
        pass  # the lock went with the process
    (images / ".tags.ome-unsaved.csv").write_text("image,spl")  # as a kill within a save leaves it
    with serving(str(images)) as server:
        for tags in (["tree"], ["road"]):
            assert server.ask("PUT", "/api/tags/0", {"tags": tags}).status == 200
    assert {path.name for path in images.iterdir() if path.name.startswith((".", "tags"))} == {
        ".tags.csv.lock",
        "tags.csv",
    }


def test_a_page_without_its_server_says_so(browser: "Chrome", tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    show_as(browser, 1280, 800)
    page = Page(browser)
    with serving(str(images), "--classes", "road,tree") as server:
        browser.get(server.address)
        page.wait("document.querySelectorAll('#classes button').length === 2")
        page.press("2")
        page.saved()
        server.process.kill()
        server.process.wait(30)
    assert rows_of(images)["field_0.tif"]["tree"] == "1"
    page.press("1")
    page.wait("document.getElementById('saved').dataset.state === 'failed'")
    assert "Not saved: the server has ended" in page.element("saved").text
    page.wait("document.querySelectorAll('#classes [aria-pressed=true]').length === 1")
    assert page.on() == ["tree"]
