"""Lists and removes what a request or a run has left that still holds faces or names.

    mmu purge runs/request
    mmu purge runs/request --yes

Without --yes nothing is removed. Of a request `model/`, `report.html` and `record.json` are left,
and the record says when the rest was removed. Of a run `export/`, `unlearned/`, scores and curves
are left. The photographs and the checkpoint that were given lie elsewhere, and are not touched.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.command_line import Arguments, one_line, refuse_lost_output, steady_streams
from mmunlearner_jax.errors import InputError, shown
from mmunlearner_jax.files import read_json, write_json
from mmunlearner_jax.lock import is_locked
from mmunlearner_jax.provenance import now
from mmunlearner_jax.request import NOTE, RECORD, WORK

# What stages write that holds faces or names.
HOLDS: Mapping[str, str] = {
    "benchmark": "photographs, names, questions",
    "features": "features of photographs",
    "references": "what the model knew, as log-probabilities",
    "predictions": "names, answers",
    "judge": "answers, and their grades",
    "report.html": "photographs, names, answers",
    "vanilla": "weights that know the faces",
    "checkpoints": "weights that know the faces",
    "compare": "answers, weights that know the faces",
    "compiled": "programs, whose constants were not looked at",
}


def holding(folder: Path) -> dict[Path, str]:
    """Returns what of a folder still holds faces or names, and why.

    Args:
        folder: Folder of a request or of a run.

    Raises:
        InputError: It is neither, or a run is going on in it.
    """
    work = folder / WORK
    of_request = (folder / RECORD).exists() or (work / NOTE).exists()
    run = work if of_request else folder
    if not of_request and not (folder / "config.json").exists():
        raise InputError(
            f"{shown(folder, 200)}: is no folder of a request or of a run; give the --out of"
            " mmu forget, or a --workdir"
        )
    if run.exists() and is_locked(run):
        raise InputError(f"{shown(run, 200)}: a run is going on; wait for its end, or stop it")
    if of_request:
        return {work: "photographs, names, answers, weights"} if work.exists() else {}
    return {path: why for name, why in HOLDS.items() if (path := folder / name).exists()}


def purge(folder: Path, found: Mapping[Path, str]) -> None:
    """Removes what `holding` has found, and says so in the record of a request."""
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    file = folder / RECORD
    if file.exists():
        removed = [path.name for path in found]
        write_json(file, read_json(file) | {"purged": {"removed": removed, "date": now()}})


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]
    return sum(x.stat().st_size for x in files)


def main() -> None:
    """Runs the command."""
    parser = Arguments(prog="mmu purge", description="Removes what still holds faces or names.")
    parser.add_argument("folder", type=Path, help="the --out of mmu forget, or a --workdir")
    parser.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")
    options = parser.parse_args()
    console = Console(markup=False, emoji=False)
    with one_line(options.folder):
        found = holding(options.folder)
        if not found:
            console.print("nothing that holds faces or names is left")
            return
        table = Table("holds faces or names", "what", "MiB")
        for path, why in found.items():
            table.add_row(shown(path, 200), why, f"{_size(path) / 2**20:.1f}")
        console.print(table)
        if options.yes:
            purge(options.folder, found)
        console.print("removed" if options.yes else "nothing was removed: --yes removes it")
        refuse_lost_output()


if __name__ == "__main__":
    steady_streams()
    main()
