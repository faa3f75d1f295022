"""The lease by which a round of asking holds its claims: renewed while it lives, fenced once it lapsed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from safevid_core.models.ledger import Ledger, LedgerError, new_owner

_RENEWALS = 4  # in the length of a lease
# Goes on while the machine sleeps, where the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """An owner's hold on its claims, renewed from a thread of its own.

    A process that was stopped for longer than a lease, or that could not reach the database for so long,
    may have lost its claims to others. It then holds nothing, for good: what it has not sent yet is
    claimed again under a new lease.

    Args:
        seconds: The length of the lease.

    Attributes:
        owner: Whose claims these are.
    """

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self.owner = new_owner()
        self.seconds = seconds
        self._ledger = ledger
        self._until = time.clock_gettime(_CLOCK) + seconds
        self._over = threading.Event()
        threading.Thread(target=self._renew, name="safevid-lease", daemon=True).start()

    def holds(self) -> bool:
        """Whether the claims are surely ours still."""
        return time.clock_gettime(_CLOCK) < self._until

    def end(self) -> None:
        """Renew no longer."""
        self._over.set()

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / _RENEWALS) and self.holds():
            # From before the database was asked: it may have been long in coming to it.
            until = time.clock_gettime(_CLOCK) + self.seconds
            with suppress(LedgerError):  # the next renewal, or the next store, will tell
                self._ledger.renew(self.owner, self.seconds)
                self._until = until
