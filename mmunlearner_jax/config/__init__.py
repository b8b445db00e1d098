"""The configuration: frozen dataclasses, one a section.

Users write `ml_collections` files and overrides. A config file begins with `defaults()` and sets
what differs; `typed` turns the result into a `Config` once, at the entrance of a program.
"""

from typing import Any

from ml_collections import ConfigDict

from mmunlearner_jax.config.run import Config

__all__ = ["Config", "defaults", "typed"]


def defaults(**sections: Any) -> ConfigDict:
    """Returns every option with its default, as a config file edits it.

    Args:
        **sections: Values in place of defaults, dicts of options for sections.
    """
    config = ConfigDict(Config().to_dict())
    config.update(sections)
    return config


def typed(config: ConfigDict) -> Config:
    """Returns a config that has checked itself.

    Raises:
        InputError: An unknown option, or a value that its option does not take.
    """
    return Config.of(config.copy_and_resolve_references().to_dict())
