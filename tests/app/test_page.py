"""The page of `mmu ask` in a browser, which sends no request to another host."""

import socket
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="extra app")
sync_api = pytest.importorskip("playwright.sync_api", reason="a browser's driver")

from mmunlearner_jax.app.page import Page, bars, serve, token_table  # noqa: E402
from mmunlearner_jax.app.pair import Answer, Token  # noqa: E402
from tests.helpers.chromium import check_accessible, chromium  # noqa: E402

HERE = ("127.0.0.1", "localhost", "::1")


def test_it_answers_with_both_models_and_asks_no_other_host(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    called, connect = [], socket.socket.connect

    def recorded(self, address):
        called.append(address[0] if isinstance(address, tuple) else "")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    made = Page(pair, "run")
    blocks = made.build()
    address = serve(blocks, port=None, wait=False)
    requests: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.locator(".grid-container button").first.click()
        question = page.get_by_label("Question")
        sync_api.expect(question).not_to_have_value("")
        page.get_by_role("button", name="Ask both models").click()
        page.wait_for_selector(".tokens td", timeout=60_000)
        shown = page.locator(".answer .said").all_inner_texts()
        first = made._pictures[made._keys[0]][1][0]
        wanted = [pair.ask(x, first.question, first.image, first.options) for x in (0, 1, 0.5)]
        assert shown == [answer.text or "(nothing)" for answer in wanted]
        assert page.locator(".answer .bar").count() == 3 * len(first.options)
        assert page.locator(".tokens tr").count() == 1 + len(wanted[0].tokens)
        assert page.get_by_text("Interpolated weights: before 0, after 1").is_visible()
        # A row of the flips, and a picture of one's own.
        page.get_by_role("gridcell").filter(has_text="right to wrong").first.click()
        flip = made._flips[0].question
        sync_api.expect(question).to_have_value(flip.question)
        picture = tmp_path / "mine.png"
        made_here = pair.questions["forget"][0].image
        assert made_here
        picture.write_bytes(made_here)
        page.get_by_label("Remove Image").first.click()
        page.locator("input[type=file]").first.set_input_files(picture)
        question.fill("Who is this person?")
        page.get_by_role("button", name="Ask both models").click()
        own = pair.ask(0, "Who is this person?", made_here, flip.options).text or "(nothing)"
        sync_api.expect(page.locator(".answer .said").first).to_have_text(own, timeout=60_000)
        check_accessible(browser, address, ready="text=Ask both models")
    blocks.close(verbose=False)
    hosts = {urlsplit(url).hostname for url in requests if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
    assert {host for host in called if host} <= {*HERE}


def test_words_of_models_are_no_markup():
    answer = Answer("<b>x</b>", [("<i>", 0.25)], [])
    assert "<b>" not in bars(answer) and "&lt;i&gt;" in bars(answer) and "25.0 %" in bars(answer)
    table = token_table({"<u>": [Token(" <a>", 0.5)], "b": [Token(" <a>", 1.0)]})
    assert "<u>" not in table and "&lt;a&gt;" in table and "50.0 %" in table
