import pytest

from mmunlearner_jax.config import Config
from tests.helpers.finished_run import write_run


@pytest.fixture(scope="session")
def config():
    return Config().with_values(
        {
            "stages": ("prepare", "report"),
            "data.forget_ratio": 33,
            "data.text_source": "ft_Data",
            "evaluate.photos_per_person": 2,
        }
    )


@pytest.fixture
def workdir(tmp_path):
    """A finished run: f1 is known before and, from pictures, forgotten after; no controls."""
    return write_run(tmp_path)
