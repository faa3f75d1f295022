"""The lease by which a round of asking holds its claims: renewed while it lives, fenced once it lapsed."""

from __future__ import annotations

import logging
import threading

from safevid_core.models.ledger import Ledger, LedgerError, new_owner, still_clock

_RENEWALS = 4  # in the length of a lease
_LOG = logging.getLogger(__name__)


class Lease:
    """An owner's hold on its claims, renewed from a thread of its own until :meth:`end`.

    A process that was stopped for longer than a lease, or that could not reach the database for so long,
    may have lost some of its claims to others, and cannot tell which. From then on :meth:`holds` is false:
    what was not sent yet is claimed again under a new lease. What was sent is renewed on, as far as it is
    still there.

    Args:
        seconds: The length of the lease.

    Attributes:
        owner: Whose claims these are.
    """

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self.owner = new_owner()
        self.seconds = seconds
        self._ledger = ledger
        self._until = still_clock() + seconds
        self._over = threading.Event()
        threading.Thread(target=self._renew, name="safevid-lease", daemon=True).start()

    def holds(self) -> bool:
        """Whether the claims are surely ours still."""
        return still_clock() < self._until

    def end(self) -> None:
        """Renew no longer."""
        self._over.set()

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / _RENEWALS):
            # From before the database was asked: it may have been long in coming to it.
            until = still_clock() + self.seconds
            try:
                self._ledger.renew(self.owner, self.seconds)
            except LedgerError as error:  # the next renewal may succeed; the next store will tell
                _LOG.debug("claims not renewed: %s", error)
                continue
            if self.holds():
                self._until = until
