"""A fitted estimator is imported, and the service predicts what the estimator predicts. Others are refused by name."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from service import Service
from sklearn import linear_model as linear
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from statsmodels import api as sm
from statsmodels.formula import api as smf
from statsmodels.formula import options as engines

from linserve import Client, NotConvertible
from linserve.convert import convert

RANDOM = np.random.default_rng(17)
N = 80
TABLE = pd.DataFrame(
    {
        "size": RANDOM.normal(100, 5, N),
        "age": RANDOM.normal(size=N),
        "region": RANDOM.choice(["north", "south", "east", "west"], N),
        "code": RANDOM.integers(1, 5, N),
        "new": RANDOM.random(N) > 0.5,
    }
)
Y = 2 * TABLE["size"] - TABLE["age"] + 3 * (TABLE["region"] == "north") + RANDOM.normal(size=N)
Y2 = np.column_stack([Y, 40 - 3 * Y])
WEIGHTS = RANDOM.random(N) + 0.5
NUMBERS = TABLE[["size", "age"]]
GAPS = TABLE.assign(
    size=TABLE["size"].where(TABLE.index % 7 != 0), region=TABLE["region"].where(TABLE.index % 5 != 0, None)
)


@pytest.fixture(scope="module")
def client(publishing: Service) -> Iterator[Client]:
    with Client(publishing.url) as made:
        yield made


def assert_served(client: Client, estimator: Any, rows: pd.DataFrame, expected: Any, **names: Any) -> dict[str, Any]:
    """Import the estimator, and compare the predictions of the service. Return the card."""
    card = client.import_model(estimator, "converted", **names)

    predicted = client.predict(rows, model="converted", version=card["version"]).to_numpy()
    np.testing.assert_allclose(predicted, np.reshape(expected, (len(rows), -1)), rtol=1e-9)
    return card


REGRESSIONS = [
    linear.LinearRegression(),
    linear.LinearRegression(fit_intercept=False),
    linear.Ridge(alpha=2.0),
    linear.RidgeCV(),
    linear.Lasso(alpha=0.1),
    linear.LassoCV(cv=3),
    linear.ElasticNet(alpha=0.1),
    linear.ElasticNetCV(cv=3),
    linear.BayesianRidge(),
    linear.HuberRegressor(),
    linear.SGDRegressor(random_state=0),
]


@pytest.mark.slow
@pytest.mark.parametrize("regression", REGRESSIONS, ids=str)
def test_a_regression_predicts_the_same(client: Client, regression: Any) -> None:
    scaled = pd.DataFrame(StandardScaler().fit_transform(NUMBERS), columns=NUMBERS.columns)
    regression.fit(scaled, Y)

    card = assert_served(client, regression, scaled, regression.predict(scaled), targets=["price"])

    assert (card["features"], card["targets"]) == (["size", "age"], ["price"])
    assert card["inference_unavailable"] == "imported without statistics"


@pytest.mark.parametrize("regression", [linear.LinearRegression(), linear.Ridge(), linear.RidgeCV()], ids=str)
def test_a_regression_with_several_targets_predicts_the_same(client: Client, regression: Any) -> None:
    regression.fit(NUMBERS, Y2)

    card = assert_served(client, regression, NUMBERS, regression.predict(NUMBERS))

    assert card["targets"] == ["y1", "y2"]


def text(*columns: str, **options: Any) -> tuple[Any, list[str]]:
    return OneHotEncoder(**options), list(columns)


PIPELINES: dict[str, tuple[Any, pd.DataFrame]] = {
    "scaled": (make_pipeline(StandardScaler(), linear.Ridge()), NUMBERS),
    "scaled by minimum and maximum": (make_pipeline(MinMaxScaler((-1, 2)), linear.Ridge()), NUMBERS),
    "scaled twice": (make_pipeline(StandardScaler(with_std=False), MinMaxScaler(), linear.Lasso(0.01)), NUMBERS),
    "passed through": (make_pipeline("passthrough", FunctionTransformer(), linear.LinearRegression()), NUMBERS),
    "polynomials": (make_pipeline(StandardScaler(), PolynomialFeatures(3), linear.Ridge()), NUMBERS),
    "products": (
        make_pipeline(PolynomialFeatures(2, interaction_only=True, include_bias=False), linear.Ridge()), NUMBERS
    ),
    "filled by mean": (make_pipeline(SimpleImputer(), StandardScaler(), linear.Ridge()), GAPS[["size", "age"]]),
    "filled by median": (make_pipeline(SimpleImputer(strategy="median"), linear.Ridge()), GAPS[["size", "age"]]),
    "filled by a constant": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value=-3.5), linear.Ridge()), GAPS[["size", "age"]]
    ),
    "filled after scaling": (
        make_pipeline(StandardScaler(), SimpleImputer(strategy="median"), PolynomialFeatures(), linear.Ridge()),
        GAPS[["size", "age"]],
    ),
    "categories": (
        make_pipeline(make_column_transformer(text("region", "code"), remainder="passthrough"), linear.Ridge()),
        TABLE.drop(columns="new"),
    ),
    "categories without the first": (
        make_pipeline(make_column_transformer(text("region", "code", drop="first")), linear.LinearRegression()),
        TABLE[["region", "code"]],
    ),
    "categories without a chosen one": (
        make_pipeline(make_column_transformer(text("region", drop=["south"])), linear.LinearRegression()),
        TABLE[["region"]],
    ),
    "booleans": (
        make_pipeline(
            make_column_transformer(text("new", "region", drop="if_binary"), (StandardScaler(), ["age"])),
            linear.Ridge(),
        ),
        TABLE[["new", "region", "age"]],
    ),
    "products of categories and numbers": (
        make_pipeline(
            make_column_transformer(text("region", "new"), (StandardScaler(), ["age", "size"])),
            PolynomialFeatures(2),
            linear.Ridge(),
        ),
        TABLE[["region", "new", "age", "size"]],
    ),
    "filled categories": (
        make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()), ["region"]),
                (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["size"]),
            ),
            linear.LinearRegression(),
        ),
        GAPS[["region", "size"]],
    ),
    "gaps as a category": (
        make_pipeline(make_column_transformer(text("region"), (SimpleImputer(), ["size"])), linear.Ridge()),
        GAPS[["region", "size"]],
    ),
    "columns by number, mask, slice and type, with weights": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("number", StandardScaler(), [-5]),
                    ("mask", MinMaxScaler(), [False, True, False, False, False]),
                    ("slice", OneHotEncoder(), slice("region", "code")),
                    ("type", "drop", make_column_selector(dtype_include=bool)),
                ],
                transformer_weights={"mask": 2.5},
            ),
            linear.Ridge(),
        ),
        TABLE,
    ),
    "a step without columns, and a constant for gaps that is no level": (
        make_pipeline(
            make_column_transformer(
                (StandardScaler(), []),
                (make_pipeline(SimpleImputer(strategy="constant", fill_value=9), OneHotEncoder()), ["code"]),
            ),
            linear.Ridge(),
        ),
        TABLE[["code"]],
    ),
    "booleans with gaps": (
        make_pipeline(make_column_transformer(text("new"), ("passthrough", ["age"])), linear.Ridge()),
        TABLE.assign(new=TABLE["new"].astype(object).where(TABLE.index % 6 != 0, None))[["new", "age"]],
    ),
    "gaps of long codes": (
        make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["code"])
            ),
            linear.Ridge(),
        ),
        TABLE.assign(code=(TABLE["code"] + 1_234_567).astype(object).where(TABLE.index % 6 != 0, math.nan))[["code"]],
    ),
    "nested": (
        make_pipeline(make_pipeline(StandardScaler()), make_pipeline(PolynomialFeatures(2), linear.Ridge())), NUMBERS
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_predicts_the_same(client: Client, name: str) -> None:
    pipeline, rows = PIPELINES[name]
    pipeline.fit(rows, Y)

    assert_served(client, pipeline, rows if name[:7] != "columns" else rows.drop(columns="new"), pipeline.predict(rows))


def test_unknown_categories_that_an_encoder_ignores_are_announced(client: Client) -> None:
    rows = TABLE[["region", "age"]]
    pipeline = make_pipeline(
        make_column_transformer(text("region", drop="first", handle_unknown="ignore"), ("passthrough", ["age"])),
        linear.Ridge(),
    ).fit(rows, Y)

    with pytest.warns(UserWarning, match="unknown='reference'"):
        card = client.import_model(pipeline, "unknown")
    unknown = pd.DataFrame({"region": ["middle"], "age": [1.5]})
    with pytest.warns(UserWarning, match="unknown categories"):
        expected = pipeline.predict(unknown)
    predicted = client.predict(unknown, model="unknown", version=card["version"], unknown="reference")
    assert predicted["y"][0] == pytest.approx(expected[0], rel=1e-12)
    assert math.isnan(client.predict(unknown, model="unknown")["y"][0])


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()], ids=str)
def test_lost_digits_of_products_of_columns_far_from_0_are_announced(client: Client, scaler: Any) -> None:
    rows = NUMBERS + 5e3
    pipeline = make_pipeline(scaler, PolynomialFeatures(3), linear.Ridge()).fit(rows, Y)

    with pytest.warns(UserWarning, match="may differ from those of the pipeline by about .* of their range") as caught:
        card = client.import_model(pipeline, "far")
    (loss,) = re.findall(r"by about (\S+) of", str(caught[0].message))
    predicted = client.predict(rows, model="far", version=card["version"])["y"]
    error = float(np.abs(predicted - pipeline.predict(rows)).max())
    assert 1e-9 < error < 100 * float(loss) * float(np.ptp(Y))


def test_names_are_needed_if_the_estimator_has_none(client: Client) -> None:
    fitted = linear.LinearRegression().fit(NUMBERS.to_numpy(), Y)

    with pytest.raises(NotConvertible, match="without names of its 2 features"):
        client.import_model(fitted, "named")
    with pytest.raises(NotConvertible, match="`features` has 1 names"):
        client.import_model(fitted, "named", features=["size"])
    assert_served(client, fitted, NUMBERS, fitted.predict(NUMBERS.to_numpy()), features=["size", "age"])


def without_data(results: Any) -> Any:
    results.remove_data()
    return results


def of_formula(formula: str) -> Any:
    return smf.ols(f"y ~ {formula}", TABLE.assign(y=Y)).fit()


def hooked(module: torch.nn.Module) -> torch.nn.Module:
    module.register_forward_hook(lambda _module, _rows, result: 2 * result)
    return module


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: linear.PoissonRegressor().fit(NUMBERS, Y), "PoissonRegressor cannot be imported"),
    (lambda: linear.LogisticRegression().fit(NUMBERS, np.sign(Y - Y.mean())), "LogisticRegression cannot"),
    (
        lambda: TransformedTargetRegressor(linear.LinearRegression(), func=np.log, inverse_func=np.exp).fit(NUMBERS, Y),
        "TransformedTargetRegressor cannot be imported. It transforms the predictions",
    ),
    (linear.LinearRegression, "is not fitted"),
    (
        lambda: (
            make_pipeline(MinMaxScaler(), StandardScaler(), linear.Ridge())
            .fit(NUMBERS, Y)
            .set_params(standardscaler=StandardScaler())
        ),
        "The step StandardScaler is not fitted",
    ),
    (lambda: linear.Ridge().fit(NUMBERS.set_axis(["x", "y"], axis=1), Y), "'y' has the default name of a target"),
    (lambda: make_pipeline(RobustScaler(), linear.Ridge()).fit(NUMBERS, Y), "The step RobustScaler cannot"),
    (lambda: make_pipeline(MinMaxScaler(clip=True), linear.Ridge()).fit(NUMBERS, Y), r"MinMaxScaler\(clip=True\)"),
    (lambda: make_pipeline(FunctionTransformer(np.abs), linear.Ridge()).fit(NUMBERS, Y), "a function cannot be sent"),
    (
        lambda: make_pipeline(SimpleImputer(add_indicator=True), linear.Ridge()).fit(GAPS[["size"]], Y),
        r"SimpleImputer\(add_indicator=True\)",
    ),
    (
        lambda: make_pipeline(PolynomialFeatures(), SimpleImputer(), linear.Ridge()).fit(NUMBERS, Y),
        "SimpleImputer cannot be imported after steps that combine",
    ),
    (
        lambda: make_pipeline(OneHotEncoder(min_frequency=30), linear.Ridge()).fit(TABLE[["region"]], Y),
        "joined infrequent categories",
    ),
    (
        lambda: make_pipeline(OneHotEncoder(), linear.Ridge()).fit(TABLE[["code"]].astype(float), Y),
        "categories of type float64",
    ),
    (
        lambda: make_pipeline(OneHotEncoder(), linear.Ridge()).fit(TABLE[["region"]].replace("west", ""), Y),
        "an empty text",
    ),
    (
        lambda: make_pipeline(
            make_column_transformer(text("code"), ("passthrough", ["code"])), linear.Ridge()
        ).fit(TABLE, Y),
        "'code' is used as a category and as a number",
    ),
    (
        lambda: make_pipeline(
            make_column_transformer((SimpleImputer(), ["size"]), (SimpleImputer(strategy="median"), ["size"])),
            linear.Ridge(),
        ).fit(GAPS, Y),
        "filled with two values",
    ),
    (
        lambda: make_pipeline(PolynomialFeatures(), linear.Ridge()).fit(NUMBERS.set_axis(["a:b", "c"], axis=1), Y),
        "its name has : or",
    ),
    (
        lambda: make_pipeline(
            make_column_transformer(
                text("region"), (make_pipeline(SimpleImputer(missing_values=None, strategy="constant",
                                                             fill_value="north"), OneHotEncoder()), ["region"])
            ),
            linear.Ridge(),
        ).fit(TABLE.assign(region=TABLE["region"].astype(object).where(TABLE.index % 5 != 0, None)), Y),
        "'region' is encoded twice, and its gaps are a category of only one",
    ),
    (
        lambda: make_pipeline(StandardScaler(), PolynomialFeatures(3), linear.Ridge()).fit(NUMBERS + 1e9, Y),
        "the values of .*'age' are far from 0 compared with their spread, and a scaler subtracts their mean",
    ),
    (lambda: sm.GLM(Y, NUMBERS).fit(), "GLM cannot be imported"),
    (lambda: sm.OLS(Y2, NUMBERS).fit(), "OLS with several targets"),
    (lambda: sm.OLS(Y, NUMBERS).fit_regularized(alpha=0.1), "cannot be imported"),
    (lambda: without_data(sm.OLS(Y, NUMBERS).fit()), "without its data"),
    (lambda: of_formula("C(region, Sum)"), r"The term C\(region, Sum\) of the formula"),
    (lambda: of_formula("np.exp(age)"), r"The term np.exp\(age\) of the formula"),
    (lambda: of_formula("C(np.round(age))"), r"The term C\(np.round\(age\)\)"),
    (lambda: of_formula("I(age * size)"), r"The term I\(age \* size\)"),
    (lambda: of_formula("C(age)"), "'age' has categories of type float"),
    (lambda: of_formula("code:age + C(code)"), "'code' is used as a category and as a number"),
    (
        lambda: smf.ols("y ~ region", TABLE.assign(y=Y).replace("west", "T.east")).fit(),
        r"The term region\[T.east\] of the formula",
    ),
    (lambda: of_formula("age:np.abs(size)"), r"The term np.abs\(size\)"),
    (lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), "Sequential, made of Linear, ReLU, cannot"),
    (lambda: torch.nn.Conv1d(1, 1, 1), "Conv1d cannot"),
    (lambda: hooked(torch.nn.Linear(2, 1)), "Linear cannot be imported with hooks"),
    (lambda: torch.nn.Sequential(hooked(torch.nn.Linear(2, 1))), "Linear cannot be imported with hooks"),
    (lambda: hooked(torch.nn.Sequential(torch.nn.Linear(2, 1))), "Sequential cannot be imported with hooks"),
    (lambda: torch.nn.Linear(2, 1, dtype=torch.complex64), "complex weights"),
    (lambda: torch.nn.Linear(2, 1, device="meta"), "the device `meta`"),
    (object, "object cannot be imported"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_estimators_that_cannot_be_served_are_refused_by_name(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(NotConvertible, match=sentence):
        convert(make())


FITS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "OLS": lambda: (sm.OLS(Y, sm.add_constant(NUMBERS)).fit(), sm.add_constant(NUMBERS)),
    "OLS without a constant": lambda: (sm.OLS(Y, NUMBERS).fit(), NUMBERS),
    "WLS": lambda: (
        sm.WLS(Y, sm.add_constant(NUMBERS), weights=WEIGHTS).fit(), sm.add_constant(NUMBERS)
    ),
    "OLS with a constant at the end": lambda: (
        sm.OLS(Y, sm.add_constant(NUMBERS, prepend=False)).fit(), sm.add_constant(NUMBERS, prepend=False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_results_of_statsmodels_have_their_intervals(client: Client, name: str) -> None:
    results, design = FITS[name]()
    card = assert_served(client, results, NUMBERS, results.predict(design))

    assert_intervals(client, card, results, NUMBERS.head(5), design.head(5))


def assert_intervals(client: Client, card: dict[str, Any], results: Any, rows: pd.DataFrame, design: Any) -> None:
    """Compare the intervals of the service with those of statsmodels."""
    assert card["inference_unavailable"] is None
    frame = client.predict(rows, model="converted", version=card["version"], confidence=0.9)
    expected = results.get_prediction(design).summary_frame(alpha=0.1)
    target = card["targets"][0]
    np.testing.assert_allclose(frame[f"{target}_mean_lower"], expected["mean_ci_lower"], rtol=1e-9)
    np.testing.assert_allclose(frame[f"{target}_mean_upper"], expected["mean_ci_upper"], rtol=1e-9)


FORMULAS = [
    "size * age + I(age ** 2)",
    "C(region)",
    "region + C(code) + new + age",
    "C(region, Treatment('south')) + size",
    "0 + region",
    "0 + region + age",
    "region * age + new",
    "region:new + size",
    "age:region",
    "age:C(region, Treatment('west')) + region",
    "region * C(code)",
    "Q('size') + C(Q('code'))",
    "region:C(code):age + I(age ** 3):new",
    "new:age",
]


@pytest.mark.parametrize("engine", ["patsy", "formulaic"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_with_categories_have_the_predictions_and_intervals_of_statsmodels(
    client: Client, formula: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "formulaic":  # Its treatment contrasts have another name, and with statsmodels it has no quoted names.
        formula = re.sub(r"Q\('(\w+)'\)", r"\1", formula.replace("Treatment(", "contr.treatment("))
    monkeypatch.setattr(engines, "formula_engine", engine)
    results = of_formula(formula)
    expected = results.predict(TABLE)
    card = client.import_model(results, "converted")
    rows = TABLE[card["features"]]
    if engine == "formulaic" and "new" in rows:  # It makes numbers of booleans.
        rows = rows.assign(new=rows["new"].astype(float))

    found = client.predict(rows, model="converted", version=card["version"])["y"]
    assert abs(found - expected).max() <= 1e-12 * max(abs(expected).max(), np.ptp(Y))
    assert_intervals(client, card, results, rows, TABLE)


OWN_CONTRASTS = np.array([[1, 0, 0], [3, 1, 0], [-2, 5, 1], [0, 2, 2]])
WITH_OWN_CONTRASTS = [  # Each has a column with the name of the indicator of a level.
    ("formulaic", "C(code, OWN_CONTRASTS)"),
    ("formulaic", "C(code, contrasts=OWN_CONTRASTS)"),
    ("formulaic", "C(code, contr.custom({'T.2': [0, 1, 3, 1], 'T.3': [1, 0, 0, 1], 'T.4': [1, 1, 0, 0]}))"),
    ("patsy", "C(level, OWN_CONTRASTS)"),
    ("patsy", "C(level, contrast=OWN_CONTRASTS)"),
]


@pytest.mark.parametrize(("engine", "formula"), WITH_OWN_CONTRASTS)
def test_own_contrasts_are_not_taken_for_indicators(engine: str, formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "formula_engine", engine)
    levels = TABLE["code"].map({1: "custom0", 2: "custom1", 3: "custom2", 4: "other"})
    results = smf.ols(f"y ~ {formula}", TABLE.assign(y=Y, level=levels)).fit()
    with pytest.raises(NotConvertible, match="categories with treatment contrasts"):
        convert(results)


def test_a_robust_or_singular_covariance_is_left_out_with_a_warning(client: Client) -> None:
    twice = sm.add_constant(NUMBERS.assign(double=2 * NUMBERS["age"]))
    with pytest.warns(UserWarning, match="rank-deficient"):
        dependent = sm.OLS(Y, twice).fit()
    for results, reason in (
        (sm.OLS(Y, sm.add_constant(NUMBERS)).fit(cov_type="HC1"), "type HC1 is left out"),
        (dependent, "linearly dependent"),
    ):
        with pytest.warns(UserWarning, match=reason):
            card = assert_served(client, results, twice[results.model.exog_names[1:]], results.fittedvalues)
        assert card["inference_unavailable"] == "imported without statistics"


def test_normal_quantiles_are_not_replaced_by_those_of_student(client: Client) -> None:
    design = sm.add_constant(NUMBERS)
    normal, student = (sm.OLS(Y, design).fit(use_t=use_t) for use_t in (False, True))
    bounds = ["mean_ci_lower", "mean_ci_upper"]
    expected = {fit.use_t: fit.get_prediction(design).summary_frame(alpha=0.1)[bounds] for fit in (normal, student)}
    assert (expected[False].iloc[:, 0] > expected[True].iloc[:, 0]).all()

    with pytest.warns(UserWarning, match="use_t=False is left out"):
        card = assert_served(client, normal, NUMBERS, normal.fittedvalues)
    assert card["inference_unavailable"] == "imported without statistics"
    card = assert_served(client, student, NUMBERS, student.fittedvalues)
    served = client.predict(NUMBERS, model="converted", version=card["version"], confidence=0.9)
    np.testing.assert_allclose(served.iloc[:, 1:], expected[True], rtol=1e-9)


def test_only_a_formula_makes_products_of_columns(client: Client) -> None:
    rows = NUMBERS.set_axis(["size:age", "length (cm)^2"], axis=1)
    results = sm.OLS(Y, sm.add_constant(rows)).fit()

    assert_served(client, results, rows, results.fittedvalues)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_predicts_the_same(client: Client, bias: bool) -> None:
    torch.manual_seed(17)
    layer = torch.nn.Linear(2, 3, bias=bias)
    with torch.no_grad():
        expected = layer.double()(torch.tensor(NUMBERS.to_numpy())).numpy()

    for module in (layer, torch.nn.Sequential(torch.nn.Sequential(layer))):
        names = {"features": ["size", "age"], "targets": ["a", "b", "c"]}
        assert_served(client, module, NUMBERS, expected, **names)


def test_an_encoder_warns_only_once_and_the_conversion_needs_no_service() -> None:
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), linear.Ridge()).fit(TABLE[["region"]], Y)

    with pytest.warns(UserWarning, match="null") as caught:
        record = convert(pipeline)
    assert len(caught) == 1
    assert record["features"] == [{"name": "region", "kind": "category", "levels": ["east", "north", "south", "west"]}]
    assert "terms" not in record
