"""Sources of a benchmark's parquet files: a folder, or the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import parse_hf_uri, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfUriError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mmunlearner_jax.data.benchmarks import BENCHMARKS
from mmunlearner_jax.data.benchmarks.parquet import configs
from mmunlearner_jax.errors import InputError

_PARQUET = ("*.parquet",)


def fetched(name: str, files: Sequence[str] = ()) -> Path:
    """Returns the folder of a benchmark; fetches it first if the name is an address on the hub.

    Args:
        name: A folder, which need not exist, or `hf://datasets/OWNER/NAME@REVISION`. Without
            `@REVISION`, the pinned revision of the benchmark is fetched.
        files: Patterns of the files that are fetched; (): those of the benchmark.

    Raises:
        InputError: The address is malformed, it has no revision and none is pinned, or the hub
            does not deliver the files.
    """
    if not name.startswith("hf:"):
        return Path(name).expanduser()
    repository, revision = _parsed(name)
    of_benchmark = {record.repository: record.files for record in BENCHMARKS.values()}
    files = files or of_benchmark.get(repository, _PARQUET)
    wanted = f"hf://datasets/{repository}@{revision}"
    include = " ".join(f"--include '{pattern}'" for pattern in files)
    try:
        # Returns at once if all files are in the hub's cache.
        folder = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=[*files]
        )
    except Exception as error:  # the hub's client raises many types
        raise InputError(
            f"{wanted}: {_reason(error)}; or run `hf download {repository} --repo-type dataset"
            f" --revision {revision} {include} --local-dir FOLDER` on a machine that can"
            " download it, and give that FOLDER"
        ) from error
    if files == _PARQUET and not configs(Path(folder)):
        raise InputError(
            f"{wanted}: holds no CONFIG/*.parquet; name another repository or revision"
        )
    return Path(folder)


def _parsed(name: str) -> tuple[str, str]:
    """Returns the repository and the revision of an address."""
    form = "write hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME@REVISION"
    try:
        uri = parse_hf_uri(name)
    except HfUriError as error:
        raise InputError(f"{name}: is no address of a data set on the hub; {form}") from error
    if uri.type != "dataset" or uri.path_in_repo:
        raise InputError(f"{name}: is no address of a data set as a whole; {form}")
    pinned = {record.repository: record.revision for record in BENCHMARKS.values()}
    revision = uri.revision or pinned.get(uri.id)
    if not revision:
        raise InputError(
            f"{name}: has no revision, and none is pinned; add one, or @main for the newest"
        )
    return uri.id, revision


def _reason(error: Exception) -> str:
    """Returns the cause of a failed download and its remedy, on one line."""
    if isinstance(error, GatedRepoError):
        return "it is gated: ask for access on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such data set, or a private one: check the spelling, or `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision: give another, or @main for the newest"
    if isinstance(error.__cause__, OfflineModeIsEnabled):
        return "it is not in the cache, and HF_HUB_OFFLINE forbids downloads: unset it"
    reason = " ".join(str(error).split())[:120]
    return (
        f"cannot be fetched ({type(error).__name__}: {reason}): check the network and the disk,"
        " then try again"
    )
