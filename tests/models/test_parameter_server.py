from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener

import numpy as np
import pytest

from brain_mri.models.parameter_server import Assignment, ParameterServer, RemoteServer, Update

KEY = b"a key that both know"


def nothing() -> None:
    """What is checked while the server waits."""


def update(rank: int, assignment: Assignment, change: float, *, version: int, ends: bool = False) -> Update:
    return Update(rank, assignment, ends, version, [np.array([change])], loss_sum=2.0, right=1, images=4)


def version_of(server: ParameterServer) -> int:
    pulled = server.pull(0)
    assert pulled is not None
    return pulled.version


@pytest.fixture
def server() -> Iterator[ParameterServer]:
    server = ParameterServer(2, KEY)
    server.begin(0, [np.zeros(3)], [np.zeros(1)], finished=0, epochs=3)
    yield server
    server.close()


def test_changes_of_all_workers_add_up_to_one_of_their_mean(server: ParameterServer) -> None:
    assert server.push(update(0, Assignment(0, 1, 1), 1.0, version=0, ends=True))
    assert server.push(update(1, Assignment(0, 1, 1), 3.0, version=0, ends=True))
    sums, _ = server.wait_for(1, nothing)
    pulled = server.pull(0)
    assert pulled is not None
    np.testing.assert_array_equal(pulled.weights, [[2.0]])
    assert (sums.images, sums.right, sums.loss_sum) == (8, 2, 4.0)


def test_an_epoch_is_measured_by_the_mean_of_its_weights_the_latest_counting_most(
    server: ParameterServer,
) -> None:
    for done in range(1, 41):
        for rank in (0, 1):
            change = 1.0 if done % 2 else -1.0  # up and down, once a step
            server.push(update(rank, Assignment(0, 1, done), change, version=0, ends=done == 40))
    _, (mean,) = server.wait_for(1, nothing)
    assert 0.4 < mean[0] < 0.6, "where they are in the middle"
    server.begin(0, [], [np.zeros(1)], finished=0, epochs=3)
    for epoch in (1, 2):
        for rank in (0, 1):
            server.push(update(rank, Assignment(0, epoch, 1), 10.0, version=0, ends=True))
        _, (mean,) = server.wait_for(epoch, nothing)
        assert mean[0] == pytest.approx(10 * (epoch - 1) + 0.2 * 5 + 0.8 * 10), "of this epoch alone"


def test_staleness_is_what_came_between_pull_and_push(server: ParameterServer) -> None:
    server.push(update(0, Assignment(0, 1, 1), 1.0, version=version_of(server)))
    old = version_of(server)
    server.push(update(0, Assignment(0, 1, 2), 1.0, version=version_of(server)))
    server.push(update(0, Assignment(0, 1, 3), 1.0, version=version_of(server), ends=True))
    server.push(update(1, Assignment(0, 1, 3), 1.0, version=old, ends=True))
    sums, _ = server.wait_for(1, nothing)
    assert (sums.updates, sums.stale) == (4, 2)


def test_a_worker_is_at_most_an_epoch_ahead_of_the_validation(server: ParameterServer) -> None:
    for epoch in (1, 2):
        assert server.next(0) == Assignment(0, epoch, 0)
        server.push(update(0, Assignment(0, epoch, 1), 1.0, version=0, ends=True))
    answers: list[Assignment | None] = []
    waits = threading.Thread(target=lambda: answers.append(server.next(0)))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()
    server.push(update(1, Assignment(0, 1, 1), 1.0, version=0, ends=True))
    waits.join(0.2)
    assert waits.is_alive()
    server.push(update(1, Assignment(0, 2, 1), 1.0, version=0, ends=True))
    server.wait_for(2, nothing)
    waits.join(5)
    assert answers == [Assignment(0, 3, 0)]


def test_a_worker_that_is_started_again_goes_on_where_it_was(server: ParameterServer) -> None:
    server.push(update(1, Assignment(0, 1, 5), 1.0, version=0))
    assert server.next(1) == Assignment(0, 1, 5)
    assert not server.push(update(1, Assignment(0, 1, 4), 1.0, version=0)), "another attempt was first"


def test_what_comes_after_a_stage_is_not_added(server: ParameterServer) -> None:
    server.begin(1, [np.zeros(3)], [np.zeros(1)], finished=0, epochs=1)
    assert not server.push(update(0, Assignment(0, 1, 1), 1.0, version=0))
    assert server.pull(0) is None
    pulled = server.pull(1)
    assert pulled is not None
    np.testing.assert_array_equal(pulled.weights, [[0.0]])


def test_waiting_ends_with_the_workers(server: ParameterServer) -> None:
    def they_are_gone() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        server.wait_for(1, they_are_gone)


def test_the_same_answers_come_through_a_socket_to_who_knows_the_key(server: ParameterServer) -> None:
    listener = Listener(("127.0.0.1", 0))
    server.serve(listener)
    address = listener.address
    with pytest.raises(AuthenticationError):
        RemoteServer(address, b"another")
    remote = RemoteServer(address, KEY)
    server.set_rate(0.5)
    assert remote.next(0) == Assignment(0, 1, 0)
    assert remote.push(update(0, Assignment(0, 1, 1), 4.0, version=0))
    pulled = remote.pull(0)
    assert pulled is not None
    assert (pulled.version, pulled.learning_rate) == (1, 0.5)
    np.testing.assert_array_equal(pulled.weights, [[2.0]])
    np.testing.assert_array_equal(remote.whole(), [np.zeros(3)])
    server.end()
    assert remote.next(0) is None
    assert RemoteServer(address, KEY).next(1) is None, "who comes late is sent home as well"
    server.close()
    with pytest.raises(ConnectionError):
        RemoteServer(address, KEY)
