"""Lists configs, stages, methods, controls, anchors, attacks, benchmarks and general ability.

    mmu list            all of them
    mmu list methods    one kind

Each line is a name and what it stands for.
"""

from collections.abc import Callable, Mapping

from mmunlearner_jax.command_help import config_files, first_line, stages
from mmunlearner_jax.command_line import Arguments, hide_torch, refuse_lost_output, steady_streams


def _configs() -> dict[str, str]:
    return {path.stem: first_line(path) for path in config_files()}


def _methods() -> dict[str, str]:
    from mmunlearner_jax.unlearn.methods import METHODS

    return {name: method.label for name, method in METHODS.items()}


def _controls() -> dict[str, str]:
    from mmunlearner_jax.unlearn.controls import CONTROLS

    return {name: control.label for name, control in CONTROLS.items()}


def _anchors() -> dict[str, str]:
    from mmunlearner_jax.unlearn.anchors import ANCHORS

    return {name: anchor.label for name, anchor in ANCHORS.items()}


def _attacks() -> dict[str, str]:
    from mmunlearner_jax.audit.attacks import ATTACKS

    return {name: attack.label for name, attack in ATTACKS.items()}


def _benchmarks() -> dict[str, str]:
    from mmunlearner_jax.data.benchmarks import BENCHMARKS

    return {name: record.title for name, record in BENCHMARKS.items()}


def _general() -> dict[str, str]:
    from mmunlearner_jax.data.abilities import ABILITIES

    return {name: about.title for name, about in ABILITIES.items()}


KINDS: Mapping[str, Callable[[], dict[str, str]]] = {
    "configs": _configs,
    "stages": stages,
    "methods": _methods,
    "controls": _controls,
    "anchors": _anchors,
    "attacks": _attacks,
    "benchmarks": _benchmarks,
    "general": _general,
}


def listing(kinds: Mapping[str, Callable[[], dict[str, str]]]) -> str:
    """Returns the names of some kinds, each kind under its heading."""
    parts = []
    for kind, read in kinds.items():
        names = read()
        width = max(map(len, names), default=0) + 2
        lines = [f"  {name:{width}}{about}" for name, about in names.items()]
        parts.append("\n".join([f"{kind.capitalize()}:", *lines]))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Prints the list."""
    parser = Arguments(prog="mmu list", description="Lists what options can name.")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="one kind; all of them without it")
    kind = parser.parse_args().kind
    print(listing({kind: KINDS[kind]} if kind else KINDS), end="")
    refuse_lost_output()


if __name__ == "__main__":
    hide_torch()
    steady_streams()
    main()
