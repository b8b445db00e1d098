"""The page of `mmu ask`: a picture and a question, and what both models answer.

It needs nothing from another machine: no fonts, scripts or statistics. The browser is told to load
nothing from elsewhere, and the pictures that Gradio copies are removed with the server.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]
from starlette.middleware.base import (  # pyright: ignore[reportMissingImports]
    BaseHTTPMiddleware,
)

from mmunlearner_jax.app.pair import Answer, Flip, Pair, Token
from mmunlearner_jax.data.clips import still
from mmunlearner_jax.data.samples import Question, option_letters
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.tasks import fingerprint

OPTIONS = 4
SHOWN = 48  # pictures of a split in the gallery
FLIPS = 200  # rows of the table
_PLACES = {"Before unlearning": 0.0, "After unlearning": 1.0}
# Gradio's own scripts and styles are inline, and it makes addresses of pictures by itself.
_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' blob:"
_STYLE = """
.bar { display: grid; grid-template-columns: minmax(5em, 1fr) 2fr 4.5em; gap: .5em; margin: .2em 0 }
.bar div { border: 1px solid currentColor; height: 1em } .bar i { display: block; height: 100%;
background: currentColor } .tokens { border-collapse: collapse; width: 100% }
.tokens td, .tokens th { padding: .15em .5em; text-align: left } .said { font-size: 1.2em }
/* Gradio's own colours have too little contrast. */
button.primary { background: #1f2937 !important; color: #fff !important }
.wrap .or { color: inherit !important }
"""


def pictures(pair: Pair) -> dict[str, tuple[str, list[Question]]]:
    """Returns the benchmark's pictures: by checksum a caption, and the questions about it.

    Args:
        pair: The two models.
    """
    names, found = pair.session.bench.names(), {}
    for split, questions in pair.questions.items():
        own: dict[str, tuple[str, list[Question]]] = {}
        for question in questions:
            if question.image is None:
                continue
            key = fingerprint(question.image)
            if key not in own and len(own) < SHOWN and key not in found:
                person = names.get(question.person, question.person)
                own[key] = f"{split}: {person}", []
            if key in own:
                own[key][1].append(question)
        found |= own
    return found


def bars(answer: Answer) -> str:
    """Returns a model's answer and the probabilities of the options as HTML."""
    parts = [f'<p class="said">{html.escape(answer.text) or "(nothing)"}</p>']
    for option, probability in answer.options:
        percent = f"{100 * probability:.1f}"
        parts.append(
            f'<div class="bar"><span>{html.escape(option)}</span><div><i style="width:{percent}%">'
            f"</i></div><span>{percent} %</span></div>"
        )
    return "".join(parts)


def token_table(columns: Mapping[str, Sequence[Token]]) -> str:
    """Returns the probabilities of one answer's tokens by several models as an HTML table.

    Args:
        columns: The answer's tokens by the model's name; all of the same answer.
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = []
    for tokens in zip(*columns.values(), strict=True):
        cells = "".join(f"<td>{100 * token.probability:.1f} %</td>" for token in tokens)
        rows.append(f"<tr><td>{html.escape(tokens[0].text.strip()) or '␣'}</td>{cells}</tr>")
    return f'<table class="tokens"><tr><th>token</th>{head}</tr>{"".join(rows)}</table>'


class Page:
    """The page.

    Args:
        pair: The two models.
        title: Name of the run, shown above.
    """

    def __init__(self, pair: Pair, title: str):
        self._pair, self._title = pair, title
        self._pictures = pictures(pair)
        self._keys = list(self._pictures)
        self._flips = pair.flips()

    def answers(
        self, image: bytes | None, question: str, place: float, *options: str
    ) -> tuple[str, str, str, str]:
        """Returns the HTML of three answers (before, after, between) and of the tokens.

        Args:
            image: Encoded picture; None: a question in words.
            question: The question.
            place: Place of the interpolated weights, 0 to 1.
            *options: Options; empty ones do not count.
        """
        if not question.strip():
            raise gr.Error("Write a question.", print_exception=False)
        given = [option.strip() for option in options if option and option.strip()]
        pair = self._pair
        try:
            places = {**_PLACES, f"Interpolated, {place:.2f} of the way": place}
            said = [pair.ask(x, question, image, given) for x in places.values()]
            letters = option_letters(given)
            asked = Question(
                "",
                "qa" if image is None else "vqa",
                "classification" if given else "generation",
                image,
                question,
                "",
                tuple(given),
                letters[:1],
            )
            own = {n: pair.tokens(x, asked, said[0].text) for n, x in places.items()}
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        before, after, between = map(bars, said)
        return before, after, between, token_table(own)

    def chosen(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Returns what choosing a picture of the gallery fills in: picture, question, options."""
        return self._filled(self._pictures[self._keys[int(event.index)]][1][0])

    def flipped(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Returns what choosing a row of the flips fills in."""
        row = event.index[0] if isinstance(event.index, list | tuple) else event.index
        return self._filled(self._flips[int(row)].question)

    def _filled(self, question: Question) -> tuple[Any, ...]:
        options = [*question.options, *[""] * OPTIONS][:OPTIONS]
        # The picture's own bytes are asked about; the browser shows a copy.
        return question.image, _shown(question.image), question.question, *options

    def uploaded(self, file: str | None) -> bytes | None:
        """Returns the bytes of an uploaded picture; None where it was removed."""
        return Path(file).read_bytes() if file else None

    def build(self) -> gr.Blocks:
        """Returns the page's components."""
        with gr.Blocks(title=f"mmu ask {self._title}", analytics_enabled=False) as blocks:
            gr.Markdown(f"# {self._title}: before and after unlearning")
            image = gr.State(None)
            with gr.Row():
                with gr.Column():
                    shown = gr.Image(
                        label="Photograph (or none)",
                        type="filepath",
                        format="png",
                        sources=["upload"],
                        height=220,
                    )
                    question = gr.Textbox(label="Question", lines=2)
                    options = [gr.Textbox(label=f"Option {n + 1}") for n in range(OPTIONS)]
                    ask = gr.Button("Ask both models", variant="primary")
                with gr.Column():
                    with gr.Row():
                        said = [_answer(name) for name in _PLACES]
                    place = gr.Slider(
                        0, 1, 0.5, step=0.05, label="Interpolated weights: before 0, after 1"
                    )
                    said.append(_answer("Interpolated weights"))
                    gr.Markdown("### Probability of each token of the answer before unlearning")
                    tokens = gr.HTML()
            filled = [image, shown, question, *options]
            self._build_examples(filled)
            shown.upload(self.uploaded, shown, image)
            shown.clear(self.uploaded, shown, image)
            asked = [image, question, place, *options]
            for trigger in (ask.click, question.submit, place.release):
                trigger(self.answers, asked, [*said, tokens], concurrency_limit=1)
        return blocks

    def _build_examples(self, filled: list[Any]) -> None:
        with gr.Accordion("Photographs of the benchmark"):
            gallery = gr.Gallery(
                [(_shown(q[0].image), caption) for caption, q in self._pictures.values()],
                label="Choose one",
                columns=8,
                height=260,
                allow_preview=False,
            )
            gallery.select(self.chosen, None, filled)
        with gr.Accordion(f"Answers that flip: {len(self._flips):,}, at most {FLIPS} shown"):
            table = gr.Dataframe(
                [_row(flip) for flip in self._flips[:FLIPS]],
                headers=["flip", "split", "question", "before", "after"],
                interactive=False,
                wrap=True,
            )
            table.select(self.flipped, None, filled)


def _answer(name: str) -> gr.HTML:
    with gr.Column(min_width=240):
        gr.Markdown(f"### {name}")
        return gr.HTML(elem_classes="answer")


def _row(flip: Flip) -> list[str]:
    change = "right to wrong" if flip.lost else "wrong to right"
    return [change, flip.split, flip.question.question, *flip.responses]


def _shown(image: bytes | None) -> Any:
    """Returns a picture as the browser shows it; of a clip, some frames side by side."""
    return None if image is None else still(image)


class _OnlyFromHere(BaseHTTPMiddleware):
    """Tells the browser to load nothing from another host."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def serve(blocks: gr.Blocks, *, port: int | None, wait: bool = True) -> str:
    """Serves a page to this machine alone.

    Args:
        blocks: The page.
        port: Port; None: the first free one from 7860.
        wait: Whether to return only when the server ends.

    Returns:
        The page's address.
    """
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    _, address, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Base(font=fonts[0], font_mono=fonts[1]),
        css=_STYLE,
        app_kwargs={"middleware": [Middleware(_OnlyFromHere)]},
    )
    if wait:
        print(f"{address} (Ctrl-C ends)", flush=True)
        blocks.block_thread()
    return address
