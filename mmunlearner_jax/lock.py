"""The lock of a workdir: a lease that its holder renews, also on shared file systems."""

import contextlib
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from mmunlearner_jax.errors import InputError, refusing, shown

LOCK = ".lock"  # beginning of its files' names

# Seconds after which a lease that is not renewed has expired. No clocks are compared: a waiting
# process watches the file and sees that it does not change for this long.
LEASE = 30.0


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks a workdir during the block; makes it if it is not there.

    The lease of a process that has ended is taken over: at once if it was on this host, and after
    `LEASE` seconds without renewal if it was on another host.

    Raises:
        InputError: Another run holds the lock.
    """
    lease = SoftFileLease(workdir / LOCK, lease_duration=LEASE, on_compromise=_leave)
    begun = workdir / f"{LOCK}.since"  # holds the start time, which a lease does not
    with refusing(workdir, "give another --workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        _acquire(lease, begun)
    try:
        with refusing(begun, "give another --workdir"):
            begun.write_text(datetime.datetime.now().astimezone().isoformat(" ", "seconds"))
        yield
    finally:
        with contextlib.suppress(OSError):  # the lease ends with this process anyway
            begun.unlink(missing_ok=True)
            lease.release()


def is_locked(workdir: Path) -> bool:
    """Returns whether a run holds the lock of a workdir; takes nothing.

    A run on this host holds it while its process lives, one on another host while the lease is
    renewed, by the clocks of both.
    """
    path = workdir / LOCK
    owner = SoftFileLease(path, lease_duration=LEASE).owner
    if owner is None:
        return False
    if owner.hostname != platform.node():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime < 2 * LEASE
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _acquire(lease: SoftFileLease, begun: Path) -> None:
    try:
        lease.acquire(timeout=0)
        return
    except Timeout:
        owner = lease.owner
    here = owner is None or owner.hostname == platform.node()
    host = "this host" if owner is None else shown(owner.hostname.partition("?")[0])
    if not here:
        print(f"{begun.parent}: checking whether the run on {host} is alive", file=sys.stderr)
        with contextlib.suppress(Timeout):
            lease.acquire(timeout=1.5 * LEASE)
            print(f"{begun.parent}: it is not, and its lease has expired", file=sys.stderr)
            return
    process = "another process" if owner is None else f"process {owner.pid}"
    since = shown(begun.read_text(), 40) if begun.is_file() else "just now"
    raise InputError(
        f"{begun.parent}: is in use by {process} on {host} since {since}; wait until it ends, or"
        " give another --workdir"
    )


def _leave(lost: LeaseCompromise) -> None:
    """Ends this process if another run took its workdir while it was suspended."""
    if lost.reason == "owner-changed":
        print(f"error: {lost.lock_file}: another run took over", file=sys.stderr, flush=True)
        os._exit(1)
