"""The system's Chromium without a window; tests that need it are skipped where there is none."""

import contextlib
import shutil

import pytest

WIDTHS, SCHEMES = (400, 800, 1280), ("light", "dark")


@contextlib.contextmanager
def chromium():
    """Yields a browser of playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, path, **options):
    """Opens a file, or a server's address; at the end nothing of another place was requested.

    No error was logged, either.
    """
    address = path if isinstance(path, str) else path.as_uri()
    context = browser.new_context(accept_downloads=True, **options)
    page = context.new_page()
    requested, errors = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    inside = ("data:", "blob:", "file:" if address.startswith("file:") else address)
    outside = [url for url in requested if not url.startswith(inside)]
    assert outside == [] and errors == []


def check_accessible(browser, path, ready="main"):
    """Asserts that axe-core finds nothing serious at each width in both colour schemes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in SCHEMES:
        for width in WIDTHS:
            size = {"width": width, "height": 900}
            with opened(browser, path, viewport=size, color_scheme=scheme) as page:
                page.wait_for_selector(ready)
                found = [
                    (it["id"], [node["target"] for node in it["nodes"]][:3])
                    for it in axe.run(page).response["violations"]
                    if it["impact"] in ("serious", "critical")
                ]
                assert found == [], (scheme, width)
                whole = page.evaluate("document.documentElement.scrollWidth")
                assert whole <= width  # only tables and figures scroll sideways
