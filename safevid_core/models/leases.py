"""The lease on the questions that a process is asking. It is renewed until it ends or expires."""

from __future__ import annotations

import logging
import threading

from safevid_core.models.ledger import Ledger, LedgerError, new_owner, still_clock

_RENEWALS = 4  # number of renewals in the length of a lease
_LOG = logging.getLogger(__name__)


class Lease:
    """The lease of one owner on its questions. A thread renews it until :meth:`end`.

    If the process stops, or cannot reach the database, for longer than the lease, other processes may take
    some of its questions. The process cannot know which. :meth:`holds` is then false for good. The gateway
    takes a new lease on the questions that were not sent yet. The thread still renews the rows of questions
    that were sent and that no other process has taken.

    Args:
        ledger: The ledger.
        seconds: Length of the lease.

    Attributes:
        owner: Name of the owner in the ledger.
    """

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self.owner = new_owner()
        self.seconds = seconds
        self._ledger = ledger
        self._until = still_clock() + seconds
        self._over = threading.Event()
        threading.Thread(target=self._renew, name="safevid-lease", daemon=True).start()

    def holds(self) -> bool:
        """Return whether no other process can have taken a question of this lease."""
        return still_clock() < self._until

    def end(self) -> None:
        """Stop the renewals."""
        self._over.set()

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / _RENEWALS):
            # Read the clock before the renewal, because the database may take long.
            until = still_clock() + self.seconds
            try:
                self._ledger.renew(self.owner, self.seconds)
            except LedgerError as error:  # the next renewal may succeed; otherwise storing raises
                _LOG.debug("lease not renewed: %s", error)
                continue
            if self.holds():
                self._until = until
