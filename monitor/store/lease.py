"""One row to one leader: who holds the lease may lead, and every write of a leader says that it still does.

Time is the database's own, so that no instance's clock decides. A lease that is not renewed ends; whoever takes it next gets a
higher token, and a write under an older one is refused (the fencing token of Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, and_, or_, select, update

from monitor.errors import Deposed, StoreUnavailable
from monitor.store.engine import database_ms, reading, writing
from monitor.store.rows import upsert
from monitor.store.schema import lease as lease_table

LEADER: Final = "leader"
LASTS_MS: Final = 9_000
"""A leader that has died is followed within so long, and the time that the next one needs to look around."""

_NOBODY: Final = 0


class Lease:
    """The leader's lease, as one instance sees it. `owner` names the instance in the database, for people."""

    def __init__(self, engine: Engine, owner: str, name: str = LEADER) -> None:
        self._engine = engine
        self._owner = owner
        self._name = name
        self._token = _NOBODY

    @property
    def held(self) -> bool:
        """Whether we had it when we last looked."""
        return self._token != _NOBODY

    def acquire(self) -> bool:
        """Takes the lease if nobody holds it; whether it is ours now. Raises StoreUnavailable."""
        table = lease_table.c
        with reading(self._engine) as connection:
            row = connection.execute(select(lease_table).where(table.name == self._name)).one_or_none()
            if row is not None and 0 < row.expires_at_ms - database_ms(connection) <= LASTS_MS:
                # One that ends later than any lease lasts was taken before the database's clock was set back.
                return False
        with writing(self._engine) as connection:
            now_ms = database_ms(connection)
            connection.execute(
                upsert(connection, lease_table)
                .values(name=self._name, owner="", token=_NOBODY, expires_at_ms=0)
                .on_conflict_do_nothing()
            )
            token = connection.scalar(
                update(lease_table)
                .where(
                    table.name == self._name,
                    or_(table.expires_at_ms <= now_ms, table.expires_at_ms > now_ms + LASTS_MS),
                )
                .values(owner=self._owner, token=table.token + 1, expires_at_ms=now_ms + LASTS_MS)
                .returning(table.token)
            )
        self._token = _NOBODY if token is None else token
        return self.held

    def renew(self) -> None:
        """Makes it last from now on. Raises Deposed when it is no longer ours, and StoreUnavailable."""
        with writing(self._engine) as connection:
            self.prolong(connection)

    @contextmanager
    def kept(self, at_most_s: float = 120.0) -> Iterator[None]:
        """Renews the lease from a thread while the context lasts, but not for ever: work that takes longer costs no lead.

        Who is deposed meanwhile hears of it when it saves. A process that is stopped or killed renews nothing.
        """
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(done, time.monotonic() + at_most_s), name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _keep(self, done: threading.Event, until_s: float) -> None:
        while not done.wait(LASTS_MS / 3_000) and time.monotonic() < until_s:
            try:
                self.renew()
            except (Deposed, StoreUnavailable):
                return

    def prolong(self, connection: Connection) -> None:
        """As `renew`, within a transaction that is made under the lease: if it raises, nothing of that transaction may stay."""
        table = lease_table.c
        prolonged = connection.execute(
            update(lease_table)
            .where(and_(table.name == self._name, table.token == self._token))
            .values(expires_at_ms=database_ms(connection) + LASTS_MS)
        ).rowcount
        if prolonged != 1:
            token, self._token = self._token, _NOBODY
            raise Deposed(f"another instance leads now (our token {token})")

    def release(self) -> None:
        """Lets others have it at once; nothing happens when it is not ours. Raises StoreUnavailable."""
        if not self.held:
            return
        table = lease_table.c
        with writing(self._engine) as connection:
            connection.execute(
                update(lease_table).where(table.name == self._name, table.token == self._token).values(expires_at_ms=0)
            )
        self._token = _NOBODY
