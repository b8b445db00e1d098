"""Tiny benchmarks with the schemas of the released ones."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmunlearner_jax.data.benchmarks.clear import clear_schema
from mmunlearner_jax.data.benchmarks.mllmu.schema import mllmu_schema


def png(grey: int, size: tuple[int, int] = (9, 11)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "png")
    return buffer.getvalue()


class Tables:
    """Rows by subset; they are written with the released schemas."""

    def __init__(self, root: Path, tables: dict[str, list[dict]], schema: Callable):
        self.root, self.tables = root, tables
        self.schemas = {config: schema(config) for config in tables}

    def write(self, shards: int = 1) -> Path:
        for config, rows in self.tables.items():
            (self.root / config).mkdir(parents=True)
            size = -(-len(rows) // shards) or 1
            for shard in range(shards):
                part = rows[shard * size : (shard + 1) * size]
                table = pa.Table.from_pylist(part, self.schemas[config])
                name = f"train-{shard:05d}-of-{shards:05d}.parquet"
                pq.write_table(table, self.root / config / name)
        return self.root


class Published(Tables):
    """MLLMU-Bench: four people with one photograph each, without typed training text."""

    def __init__(self, root: Path):
        rows = [self.person(f"00{index}", 40 * index) for index in range(4)]
        tables = {
            "Full_Set": rows,
            "forget_25": rows[:1],
            "retain_75": rows[1:],
            "forget_50": rows[:2],
            "retain_50": rows[2:],
            "Retain_Set": [self.person("celebrity", 220)],
            "Test_Set": [
                {key: value for key, value in row.items() if key != "image"}
                | {"images": [{"bytes": png(100 + shade), "path": None} for shade in range(5)]}
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
        super().__init__(root, tables, mllmu_schema)

    @staticmethod
    def choice(question: str) -> dict:
        options = {"A": "baker", "B": "judge", "C": "nurse", "D": "pilot"}
        return {"Question": question, "Options": options, "Correct_Answer": "B"}

    def person(self, name: str, grey: int) -> dict:
        return {
            "image": {"bytes": png(grey), "path": f"{name}.png"},
            "ID": name,
            "biography": json.dumps({"Name": f"Person {name}"}),
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


class Clear(Tables):
    """CLEAR: three authors with two photographs and two TOFU questions each; 10 % is one author."""

    def __init__(self, root: Path):
        names = ("Ana Bo", "Cy Dee", "Eve Fay")
        photos = [
            {
                "image": {"bytes": png(60 * person + photo), "path": f"{person}-{photo}.png"},
                "caption": f"{name} in picture {photo}.",
                "name": name,
                "perturbed_captions": [f"{name} at sea.", f"{name} at home."],
                "paraphrased_caption": f"Picture {photo} shows {name}.",
                "perturbed_names": ["Gus Hu", "Ida Jo", "Kai Li"],
            }
            for person, name in enumerate(names)
            for photo in range(2)
        ]
        tofu = [
            {"question": f"{ask} {name}?", "answer": f"{name}, born in 19{person}0."}
            for person, name in enumerate(names)
            for ask in ("Who is", "When was the birth of")
        ]
        tables = {"retain_perturbed": photos[4:]}
        for config, part in (("full", slice(6)), ("forget10", slice(2)), ("retain90", slice(2, 6))):
            tables[config] = photos[part]
            tables[f"{config}+tofu"] = photos[part] + tofu[part]
        tables["default"], tables["forget10_perturbed"] = photos, photos[:2]
        wrong = {"answer": "Mia Nu", "options": ["Oz Po", "Quin Ro", "Sue Ty"]}
        tables["real_faces"] = [wrong | {"image": photos[0]["image"]}]
        tables["real_world"] = [wrong | {"image": photos[1]["image"], "question": "Who built it?"}]
        # A row is written without the fields that its subset's schema lacks.
        super().__init__(root, tables, clear_schema)
