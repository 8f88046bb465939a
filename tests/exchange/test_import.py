"""Models that are imported predict what they predicted before, and know what their files knew."""

import contextlib
import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import statsmodels.api as sm
from cards import card_of
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from registries import Kind, Place
from safetensors.numpy import save

from app.data.names import MAX_NAME_LENGTH
from app.errors import InvalidInput, LinserveError, MalformedBody
from app.exchange.base import Import
from app.exchange.json_reader import JsonImport
from app.exchange.json_writer import JsonExport
from app.exchange.publishing import to_version
from app.exchange.safetensors_reader import SafetensorsImport
from app.exchange.version_file_writer import LinserveExport
from app.exchange.version_reader import VersionImport
from app.migration.copy import migrate
from app.migration.places import FolderPlace, StorePlace
from app.registry.bucket.publisher import BucketPublisher
from app.registry.origin import Imported
from app.registry.version_file import FileContent, Version, encode, read
from app.regression.hypothesis_tests import infer
from app.storage import open_store

REGISTRY = Path(__file__).parents[1] / "registry"
FILES = sorted((*REGISTRY.glob("schema_4/*.safetensors"), *REGISTRY.glob("schema_5/*.safetensors")))
PLAIN: dict[str, Any] = {"features": ["a", "b"], "targets": ["y"], "coefficients": [2.0, -1.0], "intercept": 0.5}


def imported(content: bytes, model_format: Import | None = None, options: Mapping[str, str] | None = None) -> Version:
    """Read a model and store it as a version. Return that, as it is read from its file."""
    model_format = model_format or JsonImport()
    version = to_version(
        model_format.read(content, options or {}), "model", Imported(model_format.name, "coefficients")
    )
    return read(FileContent(encode(version.card, version.model), "a file"))


def of_record(**record: Any) -> Version:
    return imported(json.dumps(PLAIN | record).encode())


def test_a_constant_for_gaps_may_be_the_text_of_a_date_or_a_boolean() -> None:
    features = [
        {"name": "day", "kind": "date", "missing": "fill", "fill": "1970-01-03"},
        {"name": "wet", "kind": "boolean", "missing": "fill", "fill": "yes"},
        {"name": "size", "missing": "fill", "fill": "1,5", "decimal": ","},
    ]
    version = of_record(features=features, coefficients=[1, 1, 1])
    assert [column.fill for column in version.table.features] == [2.0, 1.0, 1.5]


def rows_for(version: Version) -> NDArray[np.float64]:
    """Return rows of encoded features near those of training, or near 0."""
    model, rng = version.model, np.random.default_rng(1)
    return 50 + 30 * rng.normal(size=(40, len(model.features)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
@pytest.mark.parametrize(
    ("export", "model_format"), [(JsonExport(), JsonImport()), (LinserveExport(), VersionImport())]
)
def test_an_exported_version_is_imported_with_the_same_predictions_to_the_last_bit(
    file: Path, export: Any, model_format: Import
) -> None:
    version = read(file)
    again = imported(export.write(version, {}), model_format)
    x = rows_for(version)
    assert_array_equal(again.model.predict(x), version.model.predict(x))
    assert again.model.columns == version.model.columns
    assert again.card.schema_of_rows.features == version.card.schema_of_rows.features
    assert (again.model.inference_unavailable is None) == (version.model.inference_unavailable is None)
    assert again.model.has_statistics == version.model.has_statistics
    if version.model.inference_unavailable is None:
        assert_allclose(infer(again.model).standard_errors, infer(version.model).standard_errors, rtol=1e-7)
        assert_allclose(again.model.interval(x, 0.9), version.model.interval(x, 0.9), rtol=1e-7)
    origin = version.card.imported
    assert again.card.imported is not None
    assert again.card.imported.given == ("statistics" if origin is None else origin.given)
    assert (again.card.job, again.card.parent, again.card.promoted) == (None, None, None)


def fitted(result: Any, *, has_intercept: bool = True, **record: Any) -> Version:
    """Return the version of a fit of statsmodels."""
    p = len(result.params) - has_intercept
    return of_record(
        features=[f"x{index}" for index in range(p)],
        coefficients=result.params[has_intercept:].tolist(),
        intercept=float(result.params[0]) if has_intercept else 0.0,
        covariance=result.cov_params().tolist(),
        residual_df=float(result.df_resid),
        rss=float(result.ssr),
        **record,
    )


@pytest.mark.parametrize("name", ["longley", "stackloss"])
def test_intervals_and_standard_errors_of_an_imported_fit_are_those_of_statsmodels(name: str) -> None:
    table = getattr(sm.datasets, name).load_pandas()
    x, y = table.exog.to_numpy(float), table.endog.to_numpy(float)
    result = sm.OLS(y, sm.add_constant(x)).fit()
    version = fitted(result)
    expected = result.get_prediction(sm.add_constant(x)).summary_frame(alpha=0.1)
    bounds, of_mean = version.model.interval(x, 0.9)[:, 0], version.model.interval(x, 0.9, of_mean=True)[:, 0]
    assert_allclose(bounds, expected[["obs_ci_lower", "obs_ci_upper"]], rtol=1e-8)
    assert_allclose(of_mean, expected[["mean_ci_lower", "mean_ci_upper"]], rtol=1e-8)
    found = infer(version.model)
    assert_allclose(found.standard_errors[0], result.bse, rtol=1e-8)
    assert_allclose(found.p_values[0], result.pvalues, rtol=1e-7)
    assert_allclose(found.f_values, result.fvalue, rtol=1e-8)
    assert version.card.metrics["y"]["adjusted_r2"] == pytest.approx(result.rsquared_adj, rel=1e-9)
    assert (version.card.rows, version.card.rank) == (len(x), x.shape[1] + 1)


def test_a_weighted_fit_and_one_without_an_intercept_have_the_intervals_of_statsmodels() -> None:
    table = sm.datasets.stackloss.load_pandas()
    x, y = table.exog.to_numpy(float), table.endog.to_numpy(float)
    weights = np.arange(1.0, len(y) + 1)
    weighted = sm.WLS(y, sm.add_constant(x), weights=weights).fit()
    version = fitted(weighted, weighted=True)
    expected = weighted.get_prediction(sm.add_constant(x)).summary_frame(alpha=0.1)
    bounds = version.model.interval(x, 0.9, observation_weights=np.ones(len(x)))[:, 0]
    assert_allclose(bounds, expected[["obs_ci_lower", "obs_ci_upper"]], rtol=1e-8)
    assert any("weights" in warning for warning in version.card.warnings)

    through_zero = sm.OLS(y, x).fit()
    version = fitted(through_zero, has_intercept=False)
    expected = through_zero.get_prediction(x).summary_frame(alpha=0.1)
    assert_allclose(version.model.interval(x, 0.9)[:, 0], expected[["obs_ci_lower", "obs_ci_upper"]], rtol=1e-8)
    assert version.card.imported is not None
    assert version.card.imported.means_unknown
    assert_array_equal(version.model.contributions(x).sum(axis=2), version.model.predict(x))


def test_a_robust_covariance_is_refused_unless_the_rows_had_weights() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 2))
    y = x @ [1.0, 2.0] + rng.normal(size=40) * np.exp(x[:, 0])
    robust = sm.OLS(y, sm.add_constant(x)).fit(cov_type="HC3")
    with pytest.raises(InvalidInput, match="A robust covariance cannot be imported"):
        fitted(robust)


def test_two_targets_of_one_fit_keep_their_own_errors() -> None:
    table = sm.datasets.stackloss.load_pandas()
    x, first = table.exog.to_numpy(float), table.endog.to_numpy(float)
    results = [sm.OLS(y, sm.add_constant(x)).fit() for y in (first, np.sqrt(first))]
    version = of_record(
        features=["a", "b", "c"],
        targets=["y", "root"],
        coefficients=[each.params[1:].tolist() for each in results],
        intercept=[float(each.params[0]) for each in results],
        covariance=[each.cov_params().tolist() for each in results],
        residual_df=float(results[0].df_resid),
        rss=[float(each.ssr) for each in results],
    )
    assert_allclose(infer(version.model).standard_errors, [each.bse for each in results], rtol=1e-8)


def test_a_perfect_fit_has_no_intervals() -> None:
    version = of_record(covariance=np.diag([1e-40, 1e-40, 1e-40]).tolist(), residual_df=3, rss=1e-40, weighted=True)
    assert version.model.inference_unavailable is not None
    assert "perfect" in version.model.inference_unavailable


def test_coefficients_that_are_not_the_optimum_of_the_statistics_have_no_inference() -> None:
    record = json.loads(JsonExport().write(read(FILES[0]), {}))
    record["intercept"][0] += 10
    version = imported(json.dumps(record).encode())
    assert version.model.inference_unavailable is not None
    assert "not the least-squares optimum" in version.model.inference_unavailable
    assert version.card.metrics["apples"]["rmse"] > 9


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_a_state_dict_of_any_type_of_floats_is_read(dtype: str) -> None:
    weight, bias = np.array([[1.5, -2.0, 0.25]]), np.array([0.5])
    if dtype == "BF16":  # numpy has no such type, so the file is written by hand
        halves = (np.concatenate([bias, weight[0]]).astype("<f4").view("<u4") >> 16).astype("<u2")
        header = json.dumps(
            {
                "bias": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
                "weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [2, 8]},
            }
        ).encode()
        content = len(header).to_bytes(8, "little") + header + halves.tobytes()
    else:
        kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]
        content = save({"weight": weight.astype(kind), "bias": bias.astype(kind)})
    version = imported(content, SafetensorsImport(), {"features": 'a,b,"c,d"', "targets": "y"})
    assert version.card.features == ("a", "b", "c,d")
    assert_array_equal(version.model.coef, weight)
    assert_array_equal(version.model.intercept, bias)


def test_a_file_of_torch_is_read_without_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(3)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2))
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    options = {"features": "a,b,c", "targets": "y,z"}
    version = imported((tmp_path / "layer.safetensors").read_bytes(), SafetensorsImport(), options)
    x = np.random.default_rng(1).normal(size=(5, 3))
    expected = layer.double()(torch.from_numpy(x)).detach().numpy()
    assert_allclose(version.model.predict(x), expected, rtol=1e-12)


def test_a_version_file_without_statistics_stays_without_them() -> None:
    content = FILES[-3].read_bytes()
    version = imported(content, VersionImport())
    assert not version.model.has_statistics
    assert version.model.predict(np.array([[70.0, 90.0, 1.0]])).tolist() == [[148.5]]


names = st.text(max_size=8) | st.sampled_from(["a", "b", "c", "y", "mse", "intercept", "x" * (MAX_NAME_LENGTH + 1)])
numbers = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70) | st.none() | st.booleans() | st.text(max_size=3)
lists = st.recursive(numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
columns = names | st.fixed_dictionaries(
    {"name": names},
    optional={
        "kind": st.sampled_from(["number", "boolean", "date", "category", "colour"]),
        "levels": st.lists(names, max_size=3),
        "missing": st.sampled_from(["drop", "refuse", "fill", "indicator", "keep"]),
        "fill": numbers,
        "na": st.lists(names, max_size=2),
    },
)
records = st.fixed_dictionaries(
    {
        "features": st.lists(columns, max_size=3),
        "targets": st.lists(columns, max_size=2),
        "coefficients": lists,
        "intercept": lists,
    },
    optional={
        "terms": st.lists(st.sampled_from(["a", "b", "a:b", "a^2", "a^", ":"]), max_size=3),
        "columns": st.lists(names, max_size=3),
        "centre": lists,
        "start": lists,
        "covariance": lists,
        "residual_df": numbers,
        "rss": lists,
        "weighted": st.booleans(),
        "source": st.text(max_size=5),
    },
)


@given(records)
def test_any_json_is_a_model_or_refused(record: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidInput, MalformedBody):
        version = imported(json.dumps(record).encode())
        assert version.model.coef.shape == (len(version.card.targets), len(version.card.columns))


wholes = st.floats(-1e6, 1e6)


@given(st.data())
def test_a_model_that_fits_its_columns_predicts_the_sum_of_its_terms(data: st.DataObject) -> None:
    p, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    coef = data.draw(st.lists(st.lists(wholes, min_size=p, max_size=p), min_size=k, max_size=k))
    intercept = data.draw(st.lists(wholes, min_size=k, max_size=k))
    names = [f"x{index}" for index in range(p)], [f"y{index}" for index in range(k)]
    version = of_record(features=names[0], targets=names[1], coefficients=coef, intercept=intercept)
    x = np.array(data.draw(st.lists(wholes, min_size=p, max_size=p)))
    expected = np.array(intercept) + np.array(coef) @ x
    size = np.abs(intercept) + np.abs(coef) @ np.abs(x)
    assert (np.abs(version.model.predict(x[np.newaxis])[0] - expected) <= 1e-14 * size + 1e-300).all()


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_a_state_dict_or_refused(tail: bytes, length: int) -> None:
    content = length.to_bytes(8, "little") + b"{" + tail
    for model_format in (SafetensorsImport(), VersionImport()):
        model_format.matches(content)
        with pytest.raises(LinserveError):
            model_format.read(content, {"features": "a", "targets": "y"})


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_an_imported_version_is_published_in_any_registry_and_copied_between_them(kind: Kind, tmp_path: Path) -> None:
    place = Place.new(kind, tmp_path)
    version = of_record()
    card = replace(version.card, upload="import-1")
    assert place.open().publish(card, version.model, promote=True).card.version == 1
    assert place.open().publish(card, version.model, promote=True).card.version == 1  # once for each upload
    other = place.open()
    assert other.find("model", "import-1") is not None
    x = np.array([[1.0, 2.0]])
    assert other.current("model").model.predict(x).tolist() == [[0.5]]
    if kind == "folder":
        store = StorePlace(open_store((tmp_path / "copy").as_uri()))
        migrate(FolderPlace(place.folder), store, lambda _line: None)
        copied = BucketPublisher(open_store((tmp_path / "copy").as_uri())).current("model")
        assert copied.card == other.current("model").card


MANY = 50_000
LARGE: dict[str, dict[str, Any]] = {
    "numbers": {"coefficients": [1.5] * MANY},
    "empty lists": {"coefficients": [[]] * MANY},
    "nested empty lists": {"covariance": [[[]]] * MANY},
    "names": {"features": [f"name{index}" for index in range(MANY)]},
    "columns": {"features": [{"name": f"x{index}"} for index in range(MANY)]},
    "levels": {"features": [{"name": "a", "kind": "category", "levels": [f"l{index}" for index in range(MANY)]}]},
}


@pytest.mark.parametrize("name", LARGE)
def test_reading_takes_no_more_memory_than_is_reserved_for_it(name: str) -> None:
    content = json.dumps(PLAIN | LARGE[name], separators=(",", ":")).encode()
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidInput):
            JsonImport().read(content, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= JsonImport().working_bytes(content)


def test_every_number_that_the_card_of_an_imported_version_lacks_has_a_reason() -> None:
    rows = {"features": ["x"], "coefficients": [0.5], "intercept": 0, "residual_df": 9, "rss": 6.6}
    versions = [*map(read, FILES[-3:]), of_record(**rows, covariance=[[0.01]])]
    cards = [card_of(version, include="covariance") for version in versions]
    assert [card["imported"]["given"] for card in cards] == ["coefficients", "covariance", "statistics", "covariance"]
    assert [card["imported"]["baseline"] for card in cards] == ["zero", "means", "means", "zero"]
    assert cards[0]["unavailable"]["rank"] == "imported without statistics"
    assert "only approximately" in cards[1]["unavailable"]["ranges.temp"]
    assert "only approximately" not in str(cards[2]["unavailable"])
