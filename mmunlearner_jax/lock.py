"""One run at a time in a workdir: a lease that its holder renews, on shared file systems too."""

import contextlib
import datetime
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from mmunlearner_jax.errors import InputError, refusing, shown

LOCK = ".lock"  # what names of its files begin with

# Seconds after which a lease that is not renewed is over. No clocks are compared: who waits sees
# for so long that the file does not change.
LEASE = 30.0


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds a workdir within the block; it is made if it is not there.

    The lease of a process that has ended on this host is taken over at once; that of another host,
    when it is not renewed for a while.

    Raises:
        InputError: Another run holds it.
    """
    lease = SoftFileLease(workdir / LOCK, lease_duration=LEASE, on_compromise=_leave)
    begun = workdir / f"{LOCK}.since"  # a lease does not say
    with refusing(workdir, "give another --workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        _acquire(lease, begun)
    try:
        with refusing(begun, "give another --workdir"):
            begun.write_text(datetime.datetime.now().astimezone().isoformat(" ", "seconds"))
        yield
    finally:
        with contextlib.suppress(OSError):  # the lease is over with this process
            begun.unlink(missing_ok=True)
            lease.release()


def _acquire(lease: SoftFileLease, begun: Path) -> None:
    try:
        lease.acquire(timeout=0)
        return
    except Timeout:
        owner = lease.owner
    here = owner is None or owner.hostname == platform.node()
    host = "this host" if owner is None else shown(owner.hostname.partition("?")[0])
    if not here:
        print(f"{begun.parent}: seeing whether the run on {host} is alive", file=sys.stderr)
        with contextlib.suppress(Timeout):
            lease.acquire(timeout=1.5 * LEASE)
            print(f"{begun.parent}: it is not, and its lease is over", file=sys.stderr)
            return
    process = "another process" if owner is None else f"process {owner.pid}"
    since = shown(begun.read_text(), 40) if begun.is_file() else "just now"
    raise InputError(
        f"{begun.parent}: is in use by {process} on {host} since {since}; wait for its end, or give"
        " another --workdir"
    )


def _leave(lost: LeaseCompromise) -> None:
    """Ends a process that was stopped for so long that another run took its workdir."""
    if lost.reason == "owner-changed":
        print(f"error: {lost.lock_file}: another run took over", file=sys.stderr, flush=True)
        os._exit(1)
