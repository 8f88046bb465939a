"""The notebook gets the numbers of the service, and the reference numbers of this data set."""

import pytest
from service import Service

from examples.notebook import Comparison, from_scratch, optimum, with_torch_nn


def assert_equal(comparisons: list[Comparison]) -> list[float]:
    for label, ours, theirs in comparisons:
        assert theirs == pytest.approx(ours, rel=1e-10), label
    return [comparison.torch for comparison in comparisons]


def test_steps_from_scratch_are_those_of_the_service(service: Service) -> None:
    losses = assert_equal(list(from_scratch(service.client)))[:4]

    assert losses == pytest.approx([16740.3, 11840.2, 8531.4, 530.45], rel=1e-4)


@pytest.mark.slow
def test_a_data_loader_and_an_optimizer_take_the_steps_of_the_service(service: Service) -> None:
    loss, *_ = assert_equal(list(with_torch_nn(service.client)))

    assert loss < 100


def test_the_optimum_is_that_of_the_service(service: Service) -> None:
    assert assert_equal(list(optimum(service.client))) == pytest.approx([0.9094, 53.80, 66.81], rel=1e-4)
