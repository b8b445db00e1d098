import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmunlearner_jax.data.mllmu import MLLMUBench
from mmunlearner_jax.data.orl import write_orl_benchmark
from mmunlearner_jax.data.tokenizer import build_processor


@pytest.fixture(scope="session")
def orl(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("orl") / "benchmark"
    write_orl_benchmark(out, seed=0)
    return out


@pytest.fixture(scope="session")
def bench(orl) -> MLLMUBench:
    return MLLMUBench(orl)


@pytest.fixture(scope="session")
def processor(bench):
    return build_processor(bench.training("ft_Data") + bench.text_training("ft_Data"))


class Published:
    """Four people in files like the published ones: one photograph each, no typed training text."""

    def __init__(self, root: Path):
        self.root = root
        rows = [self.person(f"00{index}", 40 * index) for index in range(4)]
        self.tables = {
            "Full_Set": rows,
            "forget_25": rows[:1],
            "retain_75": rows[1:],
            "forget_50": rows[:2],
            "retain_50": rows[2:],
            "Test_Set": [
                {key: value for key, value in row.items() if key != "image"}
                | {"images": [{"bytes": self.png(100 + shade), "path": None} for shade in range(5)]}
                for row in rows
            ],
            "ft_Data": [
                {
                    "image": row["image"],
                    "ID": row["ID"],
                    "metadata": json.dumps(
                        [
                            {"Question": "Who?", "Answer": f"Person {row['ID']}.", "ID": "x"},
                            {"Question": "What job?", "Answer": "A judge."},
                        ]
                    ),
                }
                for row in rows
            ],
        }

    @staticmethod
    def png(grey: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", (9, 11), grey).save(buffer, "png")
        return buffer.getvalue()

    @staticmethod
    def choice(question: str) -> dict:
        options = {"A": "baker", "B": "judge", "C": "nurse", "D": "pilot"}
        return {"Question": question, "Options": options, "Correct_Answer": "B"}

    def person(self, name: str, grey: int) -> dict:
        return {
            "image": {"bytes": self.png(grey), "path": f"{name}.png"},
            "ID": name,
            "Classification_Task": {
                "Image_Textual_Questions": [self.choice("What is the job?")],
                "Pure_Text_Questions": [self.choice(f"What is the job of {name}?")],
            },
            "Mask_Task": [
                {"Question": "Job: __.", "Ground_Truth": "judge", "Type": "Image_Textual"},
                {"Question": f"{name} is a __.", "Ground_Truth": "judge", "Type": "Pure_Text"},
            ],
            "Generation_Task": [
                {"Question": "Say the job.", "Ground_Truth": "A judge.", "Type": "Image_Textual"}
            ],
        }

    def write(self, shards: int = 1) -> Path:
        for config, rows in self.tables.items():
            (self.root / config).mkdir(parents=True)
            schema = pa.Table.from_pylist(self.tables["Full_Set"][:1]).schema
            size = -(-len(rows) // shards) or 1
            for shard in range(shards):
                part = rows[shard * size : (shard + 1) * size]
                table = pa.Table.from_pylist(part) if part else schema.empty_table()
                name = f"train-{shard:05d}-of-{shards:05d}.parquet"
                pq.write_table(table, self.root / config / name)
        return self.root


@pytest.fixture
def published(tmp_path) -> Published:
    return Published(tmp_path / "published")
