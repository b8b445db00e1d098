"""The writer of docs/own-data.md, run as it stands there."""

import re
from pathlib import Path

from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from tests.helpers.photographs import photo

ROOT = Path(__file__).parents[2]


def test_what_the_page_writes_is_read(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("1-a", "1-b", "2-a", "2-b", "3-a", "3-b", "tower"):
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(photo(20, 20))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/own-data.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/own-data.md", "exec"), {})
    bench = MLLMUBench(tmp_path / "people")
    forget, retain = bench.split(5)
    assert bench.names() == {"1": "Anna Berg", "2": "Carl Dahl", "3": "Eva Falk"}
    assert [sample.answer for sample in bench.training(forget)] == [
        "Anna Berg.",
        "They are a judge.",
    ]
    assert len(bench.training(retain)) == 4 and len(bench.text_training("Full_Set")) == 3
    counts = {split: len(asked) for split, asked in bench.scored(forget, retain).items()}
    assert counts == {"forget": 2, "test": 1, "retain": 4, "test_retain": 2, "realworld": 2}
