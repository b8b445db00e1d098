"""Section `config.audit`: attacks on the unlearned model."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.options import Extensible, Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig(Extensible):
    """Attacks that tell erased from hidden."""

    key: ClassVar[str] = "audit"
    plugged: ClassVar[Mapping[str, type[Section]]] = {
        name: attack.options for name, attack in ATTACKS.items() if attack.options
    }

    attacks: tuple[str, ...] = option(
        tuple(ATTACKS), "Attacks that are made.", choices=tuple(ATTACKS)
    )
    after: str = option(
        "", "Checkpoint of the unlearned model.", special='"": that of the stage `unlearn`'
    )
    gold: str = option(
        "",
        "Checkpoint that was taught everything but the pictures to forget"
        " (`finetune.retain_only=gold`); it tells how fast something new is learned.",
        special='"": none',
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.attacks:
            self.refuse("attacks", f"one or more of {', '.join(ATTACKS)}")
