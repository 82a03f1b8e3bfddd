"""A headless Chromium for tests of pages: what a person would do, and what they would see."""

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

__all__ = ["Browser", "needs_chromium", "opened", "running"]

_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
_SECONDS = 60

needs_chromium = pytest.mark.skipif(
    not (_CHROMIUM and _DRIVER and importlib.util.find_spec("selenium")),
    reason="needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver) and selenium",
)

# What keeps a page from being read or reached.
_FAULTS = (Path(__file__).parent / "page_faults.js").read_text("utf-8")


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def opened(address: str, folder: Path) -> Iterator["Browser"]:
    """A browser with an empty profile in ``folder``, for pages below ``address``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(_DRIVER)))
    try:
        yield Browser(driver, address)
    finally:
        driver.quit()


class Browser:
    """One window."""

    def __init__(self, driver: Any, address: str) -> None:
        self._driver, self.address = driver, address
        self._expected: set[str] = set()

    def open(self, place: str) -> None:
        self._driver.get(self.address + place)

    def go(self, place: str) -> None:
        """Another page of the same document; the one before is gone when this returns."""
        self.script("document.querySelector('h1')?.remove(); location.hash = arguments[0];", place)
        if place == self.script("return location.hash"):
            self.script("dispatchEvent(new HashChangeEvent('hashchange'))")
        self.wait_for("h1")

    def enter(self, key: str, place: str) -> None:
        """Sign in and go to a page."""
        self.open(place)
        self.sign_in(key)

    def sign_in(self, key: str) -> None:
        self.wait_for("input[type=password]")
        self.script("arguments[0].value = ''; arguments[0].focus()", self._one("input[type=password]"))
        self.type(key, then="ENTER")

    def reload(self) -> None:
        self._driver.refresh()

    def screen(self, width: int, scheme: str) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def script(self, text: str, *arguments: Any) -> Any:
        return self._driver.execute_script(text, *arguments)

    def click(self, selector: str) -> None:
        self.wait_for(selector)
        self._one(selector).click()

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains, Keys

        ActionChains(self._driver).send_keys(getattr(Keys, key) if len(key) > 1 else key).perform()

    def type(self, text: str, then: str) -> None:
        """Into whatever has the focus, and then one key."""
        from selenium.webdriver import ActionChains

        ActionChains(self._driver).send_keys(text).perform()
        self.press(then)

    def text(self, selector: str) -> str:
        return str(self._one(selector).text)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self._driver.find_elements("css selector", selector)]

    def wait_for(self, selector: str) -> None:
        self._wait(f"no {selector}", lambda: self._driver.find_elements("css selector", selector))

    def wait_for_text(self, selector: str, text: str) -> None:
        found = (
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText).join('\\n')"
        )
        self._wait(f"no {text!r} in {selector}", lambda: text in self.script(found, selector))

    def wait_for_picture(self, selector: str) -> None:
        self.wait_for(selector)
        width = "return document.querySelector(arguments[0])?.naturalWidth"
        self._wait(f"no picture {selector}", lambda: self.script(width, selector))

    def wait_until(self, script: str) -> None:
        self._wait(f"never true: {script}", lambda: self.script(script))

    def faults(self) -> list[str]:
        """What keeps people from reading or reaching what is shown."""
        return list(self.script(_FAULTS))

    def expect_complaints(self, *statuses: str) -> None:
        """Refusals that belong to the test: the browser logs every answer that is not 200."""
        self._expected |= set(statuses)

    def complaints(self) -> list[str]:
        """What the browser logged as wrong: faults of scripts, breaches of the content policy."""
        logged = [each["message"] for each in self._driver.get_log("browser")]
        return [
            each for each in logged if not any(f"status of {status}" in each for status in self._expected)
        ]

    def _one(self, selector: str) -> Any:
        return self._driver.find_element("css selector", selector)

    def _wait(self, otherwise: str, condition: Any) -> None:
        from selenium.common.exceptions import StaleElementReferenceException

        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except StaleElementReferenceException:
                pass
            time.sleep(0.05)
        pytest.fail(f"{otherwise} within {_SECONDS} s; shown: {self.text('body')[:2000]}")
