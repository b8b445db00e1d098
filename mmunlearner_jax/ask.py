"""Asks the models of a run before and after unlearning, on a local page (extra `app`).

    mmu ask runs/orl
    mmu ask runs/mllmu5 --on-host

The page takes a photograph of the benchmark or one of yours, a question and up to four options. It
shows both models' answers, those of interpolated weights between them, and the probability of every
token. No request leaves this machine, and nothing is written in the workdir.

The device holds the weights before unlearning, and the arrays that unlearning moved of one other
place. Those after it lie on the device as well, or with --on-host in the host's memory: then 7B in
float32 takes up to twice 26 GiB of the device and up to 26 GiB of the host.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from mmunlearner_jax.command_line import (
    Arguments,
    hide_torch,
    one_line,
    quiet_libraries,
    steady_streams,
)
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.machine import compile_quickly
from mmunlearner_jax.progress import say, set_quiet


def main() -> None:
    """Runs the command."""
    parser = Arguments(prog="mmu ask", description="Asks both models of a run on a local page.")
    parser.add_argument("workdir", type=Path, help="the --workdir of a finished run")
    parser.add_argument("--port", type=int, help="port of the page; the first free one from 7860")
    parser.add_argument(
        "--on-host", action="store_true", help="keep what unlearning moved in the host's memory"
    )
    options = parser.parse_args()
    workdir: Path = options.workdir
    # So that the copies of pictures are removed then, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with one_line(workdir), tempfile.TemporaryDirectory(prefix="mmu-ask-") as folder:
        # Gradio reads these when it is imported. It copies every picture that it shows.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1"}
        try:
            from mmunlearner_jax.app.page import Page, serve
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name}: is not installed, but the page needs it; run"
                " pip install 'mmunlearner_jax[app]'"
            ) from error
        from mmunlearner_jax.app.pair import Pair

        quiet_libraries()
        compile_quickly()
        say(f"reading the models of {workdir}")
        pair = Pair.opened(workdir, on_host=options.on_host)
        set_quiet(True)  # a bar for each question would be no news
        try:
            serve(Page(pair, workdir.name).build(), port=options.port)
        except OSError as error:
            raise InputError(f"--port={options.port}: {error}; give another") from error


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    main()
