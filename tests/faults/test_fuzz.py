"""More than 1,000 broken inputs: each is read right or refused in one short line, soon and whole.

Every input follows from its seed, which is in the message of a failure.
"""

import contextlib
import io
import json
import resource
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
from flax import nnx
from PIL import Image

import mmunlearner_jax as mmu
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.endpoint import Endpoint, Reply
from mmunlearner_jax.evaluation.judge import Judge, parse_score
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers import mutations
from tests.helpers.benchmarks import Published
from tests.helpers.questions import llava

SECONDS = 20  # of one input, on a busy machine
MEMORY = 700 * 2**20  # bytes that a whole kind may add to what the process has


@contextlib.contextmanager
def limited(name: str):
    """Fails where an input takes too long."""

    def late(*_):
        raise TimeoutError(f"{name}: took more than {SECONDS} s")  # no InputError: a failure

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(kind: str, count: int, attempt) -> dict[str, int]:
    """Tries `attempt(rng)` with `count` seeds: it returns where all is right, or raises.

    Returns:
        How many inputs were read and how many refused.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"read": 0, "refused": 0}
    for seed in range(count):
        name = f"{kind}, seed {seed}"
        try:
            with limited(name):
                attempt(np.random.default_rng([seed, len(kind)]))
            found["read"] += 1
        except InputError as error:
            said = str(error)
            assert len(said) < 700 and said.isprintable(), name
            found["refused"] += 1
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - peak
    assert grown < MEMORY, f"{kind}: {grown:,} bytes"
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A whole tiny LLaVA, in two shards."""
    model, encoder = llava()
    folder = tmp_path_factory.mktemp("good") / "checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmunlearner_jax.weights.io.SHARD_BYTES", 6_000)
        save_pretrained(model, folder, processor=encoder.processor)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def copy_of(checkpoint, tmp_path):
    """Makes a fresh copy of the checkpoint and returns its folder."""

    def make() -> Path:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        return Path(shutil.copytree(checkpoint, tmp_path / "broken"))

    return make


def weights_are_right(folder: Path) -> None:
    for leaf in jax.tree.leaves(nnx.split(mmu.from_pretrained(folder))[1]):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_safetensors(copy_of):
    def attempt(rng):
        folder = copy_of()
        files = sorted(folder.glob("*.safetensors"))
        file = files[int(rng.integers(len(files)))]
        data = file.read_bytes()
        if rng.random() < 0.5:  # the header alone
            size = int.from_bytes(data[:8], "little")
            header = mutations.of_json_text(json.loads(data[8 : 8 + size]), rng)
            file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
        else:
            file.write_bytes(mutations.of_bytes(data, rng))
        weights_are_right(folder)

    assert outcomes("safetensors", 100, attempt)["refused"] > 30


@pytest.mark.parametrize(
    ("name", "count"), [("model.safetensors.index.json", 60), ("config.json", 150)]
)
def test_json_of_weights(copy_of, name, count):
    def attempt(rng):
        file = copy_of() / name
        file.write_bytes(mutations.of_json_text(json.loads(file.read_text()), rng))
        weights_are_right(file.parent)

    assert outcomes(name, count, attempt)["refused"] > count // 5


def test_tokens_and_templates(copy_of, checkpoint):
    config = LLAVA.read_config(json.loads((checkpoint / "config.json").read_text()))
    good = Encoder(*load_processor(config, str(checkpoint)))
    sample = Sample("s", _png(), "Who is this?", "Kim Birch.")
    names = sorted(
        p.name
        for p in checkpoint.iterdir()
        if p.suffix in (".json", ".jinja") and "model" not in p.name
    )
    names.remove("config.json")
    assert "tokenizer.json" in names

    def attempt(rng):
        file = copy_of() / names[int(rng.integers(len(names)))]
        if file.suffix == ".json":
            file.write_bytes(mutations.of_json_text(json.loads(file.read_text()), rng))
        else:
            file.write_bytes(mutations.of_bytes(file.read_bytes(), rng))
        encoder = Encoder(*load_processor(config, str(file.parent)))
        made = encoder.encode(sample)
        assert made["input_ids"].max() < config.text.vocab_size
        pictures = made["input_ids"] == config.image_token_id
        assert pictures.sum() == config.tokens_per_image
        assert made["picture"].shape == good.encode(sample)["picture"].shape

    assert outcomes("tokens", 150, attempt)["refused"] > 10


def _png() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def everything(root: Path) -> int:
    """Reads a benchmark as a run does."""
    bench = MLLMUBench(root, text_source="Full_Set")
    forget, retain = bench.split(25)
    read = [bench.names(), bench.training(forget), bench.text_training(retain)]
    scored = bench.scored(forget, retain)
    for questions in scored.values():
        for question in questions:
            json.dumps([question.question, question.answer, question.options]).encode()
            question.question.encode(), question.answer.encode()
    return len(read)


def test_parquet_files(tmp_path):
    root = Published(tmp_path / "good").write()
    files = sorted(root.glob("*/*.parquet"))

    def attempt(rng):
        broken = tmp_path / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(root, broken)
        file = broken / files[int(rng.integers(len(files)))].relative_to(root)
        file.write_bytes(mutations.of_bytes(file.read_bytes(), rng))
        everything(broken)

    assert outcomes("parquet", 120, attempt)["refused"] > 20


def test_parquet_cells(tmp_path):
    good = Published(tmp_path / "good")

    def attempt(rng):
        broken = tmp_path / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        tables = Published(broken)
        config = str(rng.choice(sorted(tables.tables)))
        rows = tables.tables[config]
        row = int(rng.integers(len(rows)))
        cells = {k: v for k, v in rows[row].items() if "image" not in k}
        changed = mutations.of_json(cells, rng)
        rows[row] = {k: v for k, v in rows[row].items() if "image" in k} | changed
        if "metadata" in rows[row] and rng.random() < 0.7:
            rows[row]["metadata"] = mutations.of_json_text(
                json.loads(good.tables["ft_Data"][0]["metadata"]), rng
            ).decode("utf-8", "replace")
        try:
            tables.write()
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return  # parquet cannot hold it
        everything(broken)

    assert outcomes("cells", 200, attempt)["refused"] > 20


FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "avif")


def test_pictures(tmp_path):
    image = Image.open(io.BytesIO(_png()))
    good = {}
    for name in FORMATS:
        buffer = io.BytesIO()
        image.save(buffer, name)
        good[name] = buffer.getvalue()
    encoder = llava()[1]
    bench = MLLMUBench(Published(tmp_path / "bench").write(), check=encoder.pictures.check)

    def attempt(rng):
        encoded = mutations.of_bytes(good[str(rng.choice(FORMATS))], rng)
        kept, problem = bench.picture(ParquetRow("f: row 0", {}), {"bytes": encoded, "path": None})
        if kept is None:
            raise InputError(problem)
        pixels, _ = encoder.image(kept)  # what passes the check can be used
        assert pixels.dtype == np.float32 and np.isfinite(pixels).all()

    assert outcomes("pictures", 300, attempt)["refused"] > 60


def test_replies_of_a_judge(monkeypatch):
    good = {"choices": [{"message": {"content": "Right.\nFactuality Score: 8"}}], "id": "x"}
    judge = Judge("http://127.0.0.1:9/v1", "m", "sk-secret", attempts=2, pause=0.0)

    def attempt(rng):
        body = mutations.of_json_text(good, rng)
        status = int(rng.choice([200, 200, 200, 400, 503]))
        monkeypatch.setattr(Endpoint, "post", lambda *_: Reply(status, 0.0, body))
        reply = judge.ask("Who?", "Kim.", "Kim.")
        assert parse_score(reply) in (None, *range(1, 11))
        json.dumps(reply).encode()

    assert outcomes("replies", 200, attempt)["refused"] > 50
