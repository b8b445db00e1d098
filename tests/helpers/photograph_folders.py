"""The ORL photographs laid out as plain folders: one person to forget, others to keep."""

from pathlib import Path

from mmunlearner_jax.data.benchmarks.mllmu.reader import MLLMUBench
from mmunlearner_jax.examples.orl_people import find_photographs


def write_folders(out: Path, benchmark: Path, *, forgotten: str, photographs: int = 10) -> str:
    """Writes `person/`, and `others/NAME/` of everybody else, as PGM files.

    Args:
        out: Folder to write in.
        benchmark: Folder of the ORL benchmark, which has the names.
        forgotten: ID of the person to forget ("s7").
        photographs: Of each person, the first so many.

    Returns:
        The name of the person to forget.
    """
    names = MLLMUBench(benchmark).names()
    for number, pictures in enumerate(find_photographs()[: len(names)], 1):
        name = names[f"s{number}"]
        folder = out / "person" if f"s{number}" == forgotten else out / "others" / name
        folder = folder.with_name(folder.name.replace(" ", "_"))
        folder.mkdir(parents=True)
        for photograph, content in enumerate(pictures[:photographs], 1):
            (folder / f"{photograph}.pgm").write_bytes(content)
    return names[forgotten]
