"""Bugs that mislabel, delay or drop predictions, or take unlimited memory."""

import asyncio
from dataclasses import replace
from typing import Any

from chaos.planting import after


@after("app.web.fast_path")
def fast_path_keeps_its_version() -> None:
    from app.web.fast_path import PredictFastPath

    def do_not_look(self: PredictFastPath) -> None:
        self._is_current = True

    PredictFastPath._expire = do_not_look


@after("app.web.prepared_model")
def parent_stated() -> None:
    """A response names the parent of the version that predicted."""
    from app.monitoring.taps import Tap
    from app.registry.version_file import Version
    from app.web.prepared_model import PreparedModel

    prepare = PreparedModel.__init__

    def prepare_as_parent(self: PreparedModel, version: Version, tap: Tap) -> None:
        card = version.card
        prepare(self, replace(version, card=replace(card, version=card.parent or card.version)), tap)
        self.version = version

    PreparedModel.__init__ = prepare_as_parent


@after("app.server.protocol")
def requests_under_way_dropped() -> None:
    """A stopping worker closes connections whose request has not arrived completely."""
    from app.server.protocol import BoundedHttpProtocol

    shutdown = BoundedHttpProtocol.shutdown

    def drop(self: BoundedHttpProtocol) -> None:
        if self._match is None:
            shutdown(self)
        else:
            self.transport.close()

    BoundedHttpProtocol.shutdown = drop


@after("app.server.protocol")
def idle_connections_closed_at_once() -> None:
    """A stopping worker does not wait for further requests, and does not send `Connection: close`."""
    from app.server import connection
    from app.server.protocol import BoundedHttpProtocol

    make = BoundedHttpProtocol.__init__

    def make_without_notice(self: BoundedHttpProtocol, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self._stopping = asyncio.Event()

    connection.LAST_SECONDS = 0.0
    BoundedHttpProtocol.__init__ = make_without_notice


@after("app.storage.memory_budget")
def budget_not_enforced() -> None:
    """Every reservation succeeds, and no request waits for a slot."""
    from app.storage import memory_budget
    from app.storage.memory_budget import MemoryBudget

    def try_reserve(self: MemoryBudget, count: int, limit: int) -> bool:
        return True

    MemoryBudget.try_reserve = try_reserve
    memory_budget.MAX_SLOTS = 1000
