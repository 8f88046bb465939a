"""The connection limit of a worker."""

import contextlib
from collections.abc import Iterator

import pytest
from raw_http import GOOD, PROBE, connect, count_connections, exchange, read_response
from service import Service, wait_for

from app.server import admission
from app.server.admission import ConnectionAdmission
from app.web.protocols import PROBES


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a limit of 20 connections."""
    running = Service(tmp_path_factory.mktemp("small"), max_connections="20", trainer_mode="external").start()
    yield running
    running.stop()


def test_above_the_connection_limit_requests_get_a_503_and_probes_are_answered(small: Service) -> None:
    small.client.close()
    wait_for(lambda: count_connections(small) == 0)
    with contextlib.ExitStack() as flood:
        held = [flood.enter_context(connect(small)) for _ in range(20)]
        for connection in held:
            connection.sendall(PROBE)
            assert read_response(connection) is not None
        response = exchange(small, GOOD)
        assert response is not None
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.problem["type"].endswith("too-many-connections")
        probe = exchange(small, PROBE)
        assert probe is not None
        assert probe.status == 200
        for path in PROBES:
            other = exchange(small, PROBE.replace(b"/health/live", path))
            assert other is not None, path
            assert other.status == 200, path
        held[0].sendall(GOOD)  # This connection was accepted below the limit.
        known = read_response(held[0])
        assert known is not None
        assert known.status == 200
    wait_for(lambda: count_connections(small) == 0)
    again = exchange(small, GOOD)
    assert again is not None
    assert again.status == 200


def test_new_connection_is_answered_when_all_spare_places_are_taken(small: Service) -> None:
    small.client.close()
    wait_for(lambda: count_connections(small) == 0)
    with contextlib.ExitStack() as flood:
        silent = [flood.enter_context(connect(small)) for _ in range(400)]
        probe = exchange(small, PROBE)
        assert probe is not None
        assert probe.status == 200
        refused = read_response(silent[20])  # the first above the limit
        assert refused is None or refused.status == 503
    wait_for(lambda: count_connections(small) == 0)


class Connection:
    def __init__(self, *, answers: bool = False) -> None:
        self.answers = answers
        self.is_evicted = False

    def is_answering(self) -> bool:
        return self.answers

    def evict(self) -> None:
        self.is_evicted = True


def test_the_oldest_idle_connection_above_the_limit_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SPARE_CONNECTIONS", 3)
    connections = [Connection(), *(Connection(answers=number == 0) for number in range(4))]
    limited = ConnectionAdmission(1, {b"/live"})
    assert [limited.accept(one, number) for number, one in enumerate(connections, 1)] == [True, *[False] * 4]
    assert [one.is_evicted for one in connections] == [False, False, True, False, False]

    limited.forget(connections[3])
    limited.accept(last := Connection(), 5)
    assert [one.is_evicted for one in [*connections, last]] == [False, False, True, False, True, False]


def test_a_new_connection_is_evicted_if_all_others_above_the_limit_are_answering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "SPARE_CONNECTIONS", 1)
    limited = ConnectionAdmission(1, set())
    limited.accept(Connection(answers=True), 2)
    limited.accept(new := Connection(), 3)
    assert new.is_evicted


def test_above_the_limit_only_probes_are_admitted() -> None:
    limited = ConnectionAdmission(2, {b"/live"})
    assert limited.admits(b"/live", 3)
    assert not limited.admits(b"/predict", 3)
    assert limited.admits(b"/predict", 2)  # Others have left meanwhile.
