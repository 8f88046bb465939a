from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.regression.errors import InvalidTerms
from app.regression.least_squares import fit
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.terms import expand, parse_terms

FEATURES = ("a", "b", "a:b", "c^2")


def test_terms_are_powers_and_products_of_features() -> None:
    x = np.array([[2.0, 3.0, 50.0, 70.0], [-1.0, 0.5, 60.0, 80.0]])

    found = expand(x, parse_terms(["b", "a^3", "a:b^2", "b:b", "a:a:b"], FEATURES))

    a, b = x[:, 0], x[:, 1]
    assert_allclose(found, np.column_stack([b, a**3, a * b**2, b**2, a**2 * b]))


def test_a_feature_whose_name_looks_like_a_term_is_that_feature() -> None:
    assert expand(np.array([[2.0, 3.0, 50.0, 70.0]]), parse_terms(["a:b", "c^2"], FEATURES)).tolist() == [[50.0, 70.0]]


@pytest.mark.parametrize(
    "term", ["", "d", "a^0", "a^21", "a^-1", "a^1.5", "a:", ":a", "a::b", "a^", "^2", "a^2^2", "a b"]
)
def test_an_invalid_term_is_refused_with_its_index(term: str) -> None:
    with pytest.raises(InvalidTerms) as refused:
        parse_terms(["a", term], FEATURES)

    assert [fault.term_index for fault in refused.value.faults] == [1]


def test_the_same_term_in_other_words_is_refused() -> None:
    with pytest.raises(InvalidTerms) as refused:
        parse_terms(["a:b^2", "b:a:b"], ("a", "b"))

    assert refused.value.faults[0].message == 'The term "b:a:b" is given twice. Give it once.'


def test_a_product_with_the_name_of_a_column_is_refused_with_the_remedy() -> None:
    for name in ("a:b", "a^2"):
        with pytest.raises(InvalidTerms) as refused:
            parse_terms(["a", name, name], ("a", "b", name))

        (fault,) = refused.value.faults
        assert fault.message.startswith(f'The term "{name}" is given twice. It is the column of this name, and not')
        assert "Rename the column" in fault.message


PLAIN = st.text(st.characters(exclude_characters=":^"), min_size=1, max_size=3)
POWERS = st.dictionaries(st.integers(0, 3), st.integers(1, 3), min_size=1)


@settings(max_examples=100)
@given(st.lists(PLAIN, min_size=4, max_size=4, unique=True), st.lists(POWERS, min_size=1, max_size=4), st.randoms())
def test_a_term_means_its_powers_in_whatever_order_and_words_it_is_written(
    features: list[str], terms: list[dict[int, int]], random: Random
) -> None:
    written = []
    for powers in terms:
        parts = [features[index] for index, power in powers.items() for _ in range(power)]
        if random.random() < 0.5:
            parts = [f"{features[index]}^{power}" for index, power in powers.items()]
        random.shuffle(parts)
        written.append(":".join(parts))
    expected = [tuple(sorted(powers.items())) for powers in terms]

    if len(set(expected)) < len(expected):
        with pytest.raises(InvalidTerms):
            parse_terms(written, features)
    else:
        assert parse_terms(written, features) == expected


@settings(max_examples=80)
@given(st.lists(st.text(max_size=8) | st.text("ab:^0123456789", max_size=12), max_size=5))
def test_any_words_are_terms_or_refused_each_with_its_place(terms: list[str]) -> None:
    try:
        for factors in parse_terms(terms, FEATURES):
            assert all(0 <= index < len(FEATURES) and power >= 1 for index, power in factors)
    except InvalidTerms as refused:
        places = {fault.term_index for fault in refused.faults}
        assert places <= set(range(len(terms)))


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_a_model_with_terms_makes_them_for_every_output(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.uniform(1, 3, size=(40, 2))
    names = ("a", "a^2", "a:b")
    columns = np.column_stack([x[:, 0], x[:, 0] ** 2, x[:, 0] * x[:, 1]])
    y = columns @ random.normal(size=(3, 1)) + 0.1 * random.normal(size=(40, 1))
    statistics = SufficientStatistics.from_rows(columns, y)
    found = fit(statistics, Exact())

    def model(features: tuple[str, ...], terms: tuple[str, ...]) -> LinearModel:
        return LinearModel(
            features,
            ("y",),
            found.coef,
            found.intercept,
            statistics,
            found.residual_norms,
            found.unscaled_errors,
            terms=terms,
        )

    with_terms, plain = model(("a", "b"), names), model(names, ())
    assert with_terms.columns == names
    assert_allclose(with_terms.predict(x), plain.predict(columns))
    assert_allclose(with_terms.interval(x, 0.9), plain.interval(columns, 0.9))
    assert_allclose(with_terms.contributions(x), plain.contributions(columns))
    assert_allclose(with_terms.extrapolation(x + 1).leverage, plain.extrapolation(with_terms_of(x + 1)).leverage)


def with_terms_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([x[:, 0], x[:, 0] ** 2, x[:, 0] * x[:, 1]])
