"""The Open Inference Protocol: metadata, tensors in both directions, options, errors and limits."""

import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from backports import zstd
from mixed import FEATURES, publish, rows_of, version_of_table
from raw_http import connect, read_response
from service import NO_TLS, Service, wait_for
from threaded_service import ThreadedService
from trained import model_of, version_of

from app.data.tensors import DTYPES
from app.web.protocols.inference import _smallest_value

SENT = Path(__file__).parent / "tritonclient"
KEYS = {"web": "predict", "cron": "train", "ops": "admin"}
ROWS = np.array([[73.0, 67, 43], [91, 88, 64]])
NAMES = ["temp", "rainfall", "humidity"]
CROPS, PENGUINS = "/v2/models/crop-yield", "/v2/models/penguins"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys, whose client may predict. The model `penguins` has words, booleans and dates."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    lines = [f"{name} {scope} {hashlib.sha256(name.encode()).hexdigest()}\n" for name, scope in KEYS.items()]
    keys.write_text("".join(lines))
    service = ThreadedService(folder, api_keys_file=str(keys), max_instances="5000", max_json_bytes="4000000")
    publish(service.models, version_of_table(), "penguins")
    x = np.arange(9.0)[:, np.newaxis]
    for slope in (1, 2):
        publish(service.models, version_of(model_of(x, slope * x)), "twice")
    bounded = replace(model_of(x, np.hstack([x % 2, x % 3])), targets=("y", "y_lower"))
    publish(service.models, version_of(bounded), "bounded")
    service.start()
    service.client.headers["x-api-key"] = "web"
    yield service
    service.stop()


def tensor(name: str, shape: Any, datatype: str, data: Any, **others: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": data, **others}


def binary(name: str, shape: Any, datatype: str, content: bytes) -> tuple[dict[str, Any], bytes]:
    described = {"name": name, "shape": list(shape), "datatype": datatype}
    return described | {"parameters": {"binary_data_size": len(content)}}, content


def packed(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


WHOLE = tensor("any", ROWS.shape, "FP64", ROWS.ravel().tolist())
BY_FEATURE = [tensor(name, [2], "FP64", ROWS[:, index].tolist()) for index, name in enumerate(NAMES)]


def post(service: Service, path: str, document: Any, *contents: bytes, **headers: str) -> httpx.Response:
    """Send a document and the contents of binary tensors, without a Content-Type."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lengths = {LENGTH: str(len(body))} if contents else {}
    return service.client.post(path, content=b"".join([body, *contents]), headers=lengths | headers)


def infer(service: Service, inputs: list[Any], path: str = CROPS, **members: Any) -> dict[str, Any]:
    """Return the outputs by name, as arrays, of inputs that are JSON or a pair with binary content."""
    described = [given[0] if isinstance(given, tuple) else given for given in inputs]
    contents = [given[1] for given in inputs if isinstance(given, tuple)]
    answer = post(service, f"{path}/infer", {"inputs": described, **members}, *contents)
    assert answer.status_code == 200, answer.text
    return outputs_of(answer.headers, answer.content)


def outputs_of(headers: Any, content: bytes) -> dict[str, Any]:
    """Return the outputs of a response by name, as arrays, whose order is that of the response."""
    length = int(headers.get(LENGTH.lower(), len(content)))
    document, rest = json.loads(content[:length]), content[length:]
    assert headers["content-type"] == ("application/json" if length == len(content) else "application/octet-stream")
    outputs = {}
    for output in document["outputs"]:
        assert output["datatype"] == "FP64"
        if "data" in output:
            values = np.array(output["data"], np.float64)
        else:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], "<f8"), rest[size:]
        outputs[output["name"]] = values.reshape(output["shape"])
    assert rest == b""
    return outputs


def native(service: Service, rows: Any, model: str = "crop-yield", **options: Any) -> dict[str, Any]:
    body = {"instances": rows, **options}
    answer = service.client.post(f"/models/{model}/predict", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def equal(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected, np.float64))


# Bodies of Triton's client, byte for byte

PENGUIN_ROWS = [
    {"age": 40.5, "species": "Adelie", "wild": True, "island": "Dream", "seen": "2008-01-02"},
    {"age": 38.0, "species": "Gentoo", "wild": False, "island": "Biscoe", "seen": "2009-03-04"},
]
RECORDED: dict[str, Callable[[Service], dict[str, Any]]] = {
    **{
        f"whole-{form}": lambda service: {"predict": native(service, ROWS.tolist())["predictions"]}
        for form in ("binary", "json", "gzip", "deflate")
    },
    **{
        f"levels-{form}": lambda service: {"mass": [[row["mass"]] for row in native(service, PENGUIN_ROWS, "penguins")["predictions"]]}
        for form in ("binary", "json")
    },
    "features-mixed": lambda service: {
        "oranges_upper": [[row[1][1]] for row in native(service, ROWS.tolist(), interval=0.9)["intervals"]],
        "apples": [[row[0]] for row in native(service, ROWS.tolist())["predictions"]],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_requests_of_tritons_client_get_the_values_of_the_native_format(guarded: Service, name: str) -> None:
    head, _, body = (SENT / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    with connect(guarded) as connection:
        connection.sendall(head + b"\r\nX-API-Key: web\r\n\r\n" + body)
        answer = read_response(connection)
    assert answer is not None
    assert answer.status == 200, answer.body
    expected = RECORDED[name](guarded)
    found = outputs_of({header.lower(): value for header, value in answer.headers.items()}, answer.body)
    assert list(found) == list(expected)
    for output, values in expected.items():
        equal(found[output], values)


def test_each_recorded_request_is_sent() -> None:
    assert {path.stem for path in SENT.iterdir()} == set(RECORDED)


# Inputs


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BOOL"}))
def test_each_datatype_is_read_from_json_and_from_binary(guarded: Service, datatype: str) -> None:
    values = ROWS.astype(DTYPES[datatype])
    expected = native(guarded, values.tolist())["predictions"]
    equal(infer(guarded, [tensor("any", [2, 3], datatype, values.ravel().tolist())])["predict"], expected)
    equal(infer(guarded, [tensor("any", [2, 3], datatype, values.tolist())])["predict"], expected)
    equal(infer(guarded, [binary("any", [2, 3], datatype, values.tobytes())])["predict"], expected)


def test_features_have_tensors_of_any_order_form_and_datatype(guarded: Service) -> None:
    temp = binary("temp", [2, 1], "FP32", ROWS[:, 0].astype(np.float32).tobytes())
    rainfall = tensor("rainfall", [2], "UINT8", [67, 88])
    humidity = binary("humidity", [2], "INT64", ROWS[:, 2].astype(np.int64).tobytes())
    expected = np.array(native(guarded, ROWS.tolist())["predictions"])
    found = infer(guarded, [humidity, rainfall, temp])
    assert list(found) == ["apples", "oranges"]
    equal(found["apples"], expected[:, :1])
    equal(found["oranges"], expected[:, 1:])


def test_targets_of_the_training_rows_are_ignored(guarded: Service) -> None:
    extra = tensor("apples", [2], "FP64", [1, 2])
    assert list(infer(guarded, [*BY_FEATURE, extra])) == ["apples", "oranges"]


def test_categories_dates_and_booleans_are_read_in_every_form(guarded: Service) -> None:
    rows = rows_of(FEATURES, 20, seed=3)
    objects = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    expected = [[row["mass"]] for row in native(guarded, objects, "penguins")["predictions"]]
    kinds = {"number": "FP64", "boolean": "BOOL", "category": "BYTES", "date": "BYTES"}
    texts = [tensor(each.name, [20], kinds[each.kind], rows[each.name]) for each in FEATURES]
    packs: dict[str, Callable[[Any], bytes]] = {
        "FP64": lambda values: np.array(values).tobytes(),
        "BOOL": lambda values: np.array(values).tobytes(),
        "BYTES": lambda values: packed(*values),
    }
    contents = [
        binary(each["name"], [20, 1], each["datatype"], packs[each["datatype"]](each["data"])) for each in texts
    ]
    equal(infer(guarded, texts, PENGUINS)["mass"], expected)
    equal(infer(guarded, contents, PENGUINS)["mass"], expected)
    equal(infer(guarded, [*contents[:2], *texts[2:]], PENGUINS)["mass"], expected)


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain"])
def test_any_content_type_and_any_query_are_accepted(guarded: Service, content_type: str) -> None:
    answer = post(guarded, f"{CROPS}/infer?trace=1", {"inputs": [WHOLE]}, **{"content-type": content_type})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_compressed_body_has_the_length_of_its_json_before_compression(guarded: Service, encoding: str) -> None:
    functions: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstd.compress,
    }
    compress = functions[encoding]
    described, content = binary("any", [2, 3], "FP64", ROWS.tobytes())
    document = json.dumps({"inputs": [described]}).encode()
    headers = {LENGTH: str(len(document)), "content-encoding": encoding}
    answer = guarded.client.post(f"{CROPS}/infer", content=compress(document + content), headers=headers)
    equal(outputs_of(answer.headers, answer.content)["predict"], native(guarded, ROWS.tolist())["predictions"])


def test_deflate_means_the_zlib_format_and_has_the_limits_of_every_encoding(guarded: Service) -> None:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = raw.compress(b"{}") + raw.flush()
    answer = post(guarded, f"{CROPS}/infer", content, **{"content-encoding": "deflate"})
    assert (answer.status_code, answer.json()["error"][:24]) == (400, "The body is not deflate,")
    bomb = zlib.compress(b" " * 40_000_000)
    with guarded.growing_by_less_than(20_000_000):
        answer = post(guarded, f"{CROPS}/infer", bomb, **{"content-encoding": "deflate"})
    assert answer.status_code == 413


# Missing values


@pytest.mark.parametrize("form", ["binary", "null", "NaN in JSON, as Triton's client sends it"])
def test_nan_is_a_gap_which_is_refused_or_gives_nan(guarded: Service, form: str) -> None:
    temp: Any = binary("temp", [2], "FP64", np.array([73, np.nan]).tobytes())
    if form != "binary":
        temp = tensor("temp", [2], "FP64", [73, None if form == "null" else np.nan])
    inputs = [temp, *BY_FEATURE[1:]]
    document = {"inputs": [temp[0] if isinstance(temp, tuple) else temp, *BY_FEATURE[1:]]}
    refused = post(guarded, f"{CROPS}/infer", document, *[temp[1]] if isinstance(temp, tuple) else [])
    assert refused.status_code == 400
    assert refused.json()["error"].startswith('Tensor "temp", index 1: The value is missing')
    found = infer(guarded, inputs, parameters={"missing": "null", "binary_data_output": form == "binary"})
    equal(found["apples"], [[57.32309988948519], [np.nan]])


def test_the_headers_count_the_rows_without_results(guarded: Service) -> None:
    inputs = [tensor("any", [2, 3], "FP64", [73, None, 43, 91, 88, 64])]
    answer = post(guarded, f"{CROPS}/infer", {"parameters": {"missing": "null"}, "inputs": inputs})
    assert answer.headers["linserve-missing-rows"] == "1"
    assert answer.headers["linserve-missing-reasons"] == 'gaps: "rainfall" 1'


def test_an_unknown_level_is_refused_or_has_the_effect_that_the_request_names(guarded: Service) -> None:
    inputs = [
        tensor(name, [2], kind, values)
        for name, kind, values in (
            ("species", "BYTES", ["Adelie", "Emperor"]),
            ("age", "FP64", [40, 41]),
            ("wild", "BOOL", [True, True]),
            ("island", "BYTES", ["Dream", "Dream"]),
            ("seen", "BYTES", ["2008-01-02", "2008-01-02"]),
        )
    ]
    refused = post(guarded, f"{PENGUINS}/infer", {"inputs": inputs})
    assert refused.status_code == 400
    assert refused.json() == {
        "error": 'Tensor "species", index 1: The level is not known. Send a known level, or get null results with '
        "`unknown=null`."
    }
    as_null = infer(guarded, inputs, PENGUINS, parameters={"unknown": "null"})["mass"]
    assert np.isnan(as_null).ravel().tolist() == [False, True]
    assert np.isfinite(infer(guarded, inputs, PENGUINS, parameters={"unknown": "reference"})["mass"]).all()


# Outputs


def test_the_outputs_have_the_form_of_the_inputs_and_either_form_can_be_requested(guarded: Service) -> None:
    whole, parts = infer(guarded, [WHOLE]), infer(guarded, BY_FEATURE)
    assert {name: values.shape for name, values in whole.items()} == {"predict": (2, 2)}
    assert {name: values.shape for name, values in parts.items()} == {"apples": (2, 1), "oranges": (2, 1)}
    equal(whole["predict"], np.hstack([parts["apples"], parts["oranges"]]))
    other = infer(guarded, [WHOLE], outputs=[{"name": "oranges"}, {"name": "predict"}])
    assert list(other) == ["oranges", "predict"]
    equal(other["oranges"], parts["oranges"])


def test_each_output_is_binary_or_json_as_requested(guarded: Service) -> None:
    def forms(**members: Any) -> list[bool]:
        answer = post(guarded, f"{CROPS}/infer", {"inputs": BY_FEATURE, **members})
        outputs_of(answer.headers, answer.content)
        document = json.loads(answer.content[: int(answer.headers.get(LENGTH, len(answer.content)))])
        return ["data" not in output for output in document["outputs"]]

    mixed = [{"name": "apples", "parameters": {"binary_data": True}}, {"name": "oranges", "parameters": {}}]
    assert forms() == [False, False]
    assert forms(parameters={"binary_data_output": True}) == [True, True]
    assert forms(outputs=mixed) == [True, False]
    mixed[0]["parameters"] = {"binary_data": False}
    assert forms(outputs=mixed, parameters={"binary_data_output": True}) == [False, True]


def test_the_id_comes_back_and_is_left_out_without_one(guarded: Service) -> None:
    with_id = post(guarded, f"{CROPS}/infer", {"id": "a\u00e9\U0001f34e", "inputs": [WHOLE]}).json()
    assert with_id["id"] == "a\u00e9\U0001f34e"
    assert "id" not in post(guarded, f"{CROPS}/infer", {"inputs": [WHOLE]}).json()
    assert (with_id["model_name"], with_id["model_version"]) == ("crop-yield", "1")


def test_intervals_and_contributions_are_further_outputs(guarded: Service) -> None:
    options: dict[str, Any] = {"interval": 0.9, "confidence": 0.8, "explain": True}
    expected = native(guarded, ROWS.tolist(), **options)
    bounds = {"": np.array(expected["intervals"]), "_mean": np.array(expected["confidence_intervals"])}
    contributions = np.array(expected["contributions"])
    whole, parts = infer(guarded, [WHOLE], parameters=options), infer(guarded, BY_FEATURE, parameters=options)
    suffixes = ["", "_lower", "_upper", "_mean_lower", "_mean_upper", "_baseline", "_contributions"]
    assert list(whole) == [f"predict{suffix}" for suffix in suffixes]
    assert list(parts) == [f"{target}{suffix}" for suffix in suffixes for target in ("apples", "oranges")]
    for mean, values in bounds.items():
        for index, end in enumerate(("lower", "upper")):
            equal(whole[f"predict{mean}_{end}"], values[..., index])
            equal(parts[f"oranges{mean}_{end}"], values[:, 1:, index])
    equal(whole["predict_contributions"], contributions)
    equal(parts["oranges_contributions"], contributions[:, 1])
    equal(parts["oranges_baseline"], expected["baseline"][1:])
    total = whole["predict_contributions"].sum(axis=2) + whole["predict_baseline"]
    np.testing.assert_allclose(total, whole["predict"], rtol=1e-12)


# Metadata and health


def test_the_server_is_described_and_its_probes_need_no_key(guarded: Service) -> None:
    with httpx.Client(base_url=guarded.url, timeout=60, verify=NO_TLS) as client:
        server = client.get("/v2").json()
        assert server["name"] == "linserve"
        assert server["extensions"] == ["binary_tensor_data"]
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True, "live": True}
        for path in (CROPS, f"{CROPS}/versions/1"):
            assert client.get(f"{path}/ready").json() == {"name": "crop-yield", "ready": True}
        for path in ("/v2/models/nothing", f"{CROPS}/versions/9"):
            answer = client.get(f"{path}/ready")
            assert (answer.status_code, list(answer.json())) == (404, ["error"])


@pytest.mark.parametrize("path", [CROPS, f"{PENGUINS}/versions/1"])
def test_requests_take_and_return_the_tensors_that_the_metadata_lists(guarded: Service, path: str) -> None:
    described = guarded.client.get(path).json()
    values = {"FP64": [1.5], "BOOL": [True], "BYTES": ["Adelie"]}
    own = {"island": ["Dream"], "seen": ["2008-01-02"]}
    inputs = [
        tensor(each["name"], [1 if size == -1 else size for size in each["shape"]], each["datatype"], own.get(each["name"], values[each["datatype"]]))
        for each in described["inputs"]
    ]  # fmt: skip
    found = infer(guarded, inputs, path)
    assert [(name, values.ndim) for name, values in found.items()] == [
        (each["name"], len(each["shape"])) for each in described["outputs"]
    ]
    assert described["versions"] == ["1"]
    assert described["platform"] == "linserve"


def test_the_index_lists_the_versions_of_all_models(guarded: Service) -> None:
    ready = {"version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}'):
        index = guarded.client.post("/v2/repository/index", content=body).json()
        assert index[:3] == [{"name": name, **ready} for name in ("bounded", "crop-yield", "penguins")]
        assert [entry["version"] for entry in index[3:]] == ["1", "2"]
    refused = guarded.client.post("/v2/repository/index", content=b'{"ready": "yes"}')
    assert refused.status_code == 400
    assert "/ready" in refused.json()["error"]


def test_outputs_with_unique_names_can_be_requested_if_other_names_are_ambiguous(guarded: Service) -> None:
    outputs, one = [{"name": "y"}, {"name": "y_upper"}], tensor("x0", [1], "FP64", [1])
    asked: dict[str, Any] = {"parameters": {"interval": 0.9}, "outputs": outputs}
    found = infer(guarded, [one], "/v2/models/bounded", **asked)
    assert list(found) == ["y", "y_upper"]
    whole = infer(
        guarded, [{**one, "name": "any", "shape": [1, 1]}], "/v2/models/bounded", parameters={"interval": 0.9}
    )
    assert [values.shape for values in whole.values()] == [(1, 2)] * 3


# Scopes, headers and metrics


CALLS = {
    f"POST {CROPS}/infer": {"web", "ops"},
    f"POST {CROPS}/versions/1/infer": {"web", "ops"},
    f"GET {CROPS}": set(KEYS),
    f"GET {CROPS}/versions/1": set(KEYS),
    "POST /v2/repository/index": set(KEYS),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_key_permits_what_its_scopes_cover(guarded: Service, call: str) -> None:
    method, _, path = call.partition(" ")
    body = {"inputs": [WHOLE]} if path.endswith("infer") else {}
    for key in (*KEYS, "wrong"):
        answer = guarded.client.request(method, path, json=body, headers={"x-api-key": key})
        expected = 200 if key in CALLS[call] else 403 if key in KEYS else 401
        assert answer.status_code == expected, answer.text
        assert (list(answer.json()) == ["error"]) == (expected != 200)


def test_the_headers_of_versions_and_the_request_id_hold(guarded: Service) -> None:
    answer = post(
        guarded, f"{CROPS}/infer", {"inputs": [WHOLE]}, **{"x-request-id": "mine", "linserve-min-version": "1"}
    )
    assert answer.headers["linserve-version"] == "1"
    assert answer.headers["x-request-id"] == "mine"
    later = post(guarded, f"{CROPS}/infer", {"inputs": [WHOLE]}, **{"linserve-min-version": "2"})
    assert later.status_code == 503
    assert int(later.headers["retry-after"]) > 0
    assert list(later.json()) == ["error"]


def counted(service: Service, line: str) -> float:
    texts = service.client.get("/metrics").text.splitlines()
    return sum(float(text.rpartition(" ")[2]) for text in texts if text.startswith(line))


def test_requests_and_rows_are_counted_for_the_protocol(doors: Service) -> None:
    route = 'protocol="open-inference",route="/v2/models/{model}/infer"'
    requests = f'linserve_requests_total{{method="POST",{route},status="200"}}'
    before = counted(doors, requests), counted(doors, "linserve_predicted_rows_total")
    infer(doors, [WHOLE])
    infer(doors, BY_FEATURE)
    after = counted(doors, requests), counted(doors, "linserve_predicted_rows_total")
    assert after == (before[0] + 2, before[1] + 4)


def test_a_split_of_the_traffic_holds_unless_the_path_names_a_version(doors: Service) -> None:
    x = np.arange(9.0)[:, np.newaxis]
    for slope in (1, 2):
        publish(doors.models, version_of(model_of(x, slope * x)), "halves")
    doors.client.put("/models/halves/traffic", json={"1": 50, "2": 50}).raise_for_status()
    one = {"inputs": [tensor("x0", [1], "FP64", [1])]}

    def answered(path: str, client: int) -> str:
        answer = post(doors, f"/v2/models/halves{path}/infer", one, **{"linserve-sticky": f"client {client}"}).json()
        assert answer["outputs"][0]["data"] == pytest.approx([float(answer["model_version"])])
        return str(answer["model_version"])

    assert {answered("", client) for client in range(30)} == {"1", "2"}
    assert len({answered("", 7) for _ in range(5)}) == 1
    assert {answered("/versions/1", client) for client in range(30)} == {"1"}
    # The monitor counts them later.
    wait_for(lambda: counted(doors, 'linserve_model_requests_total{model="halves"') == 65)
    wait_for(lambda: counted(doors, 'linserve_model_rows_total{model="halves"') == 65)


# Bad requests


class Bad(NamedTuple):
    status: int
    message: str
    inputs: Any = None  # The inputs of a document with one request.
    body: bytes | None = None
    path: str = f"{CROPS}/infer"
    content: bytes = b""  # After the document.
    headers: dict[str, str] = {}  # noqa: RUF012 - a constant
    members: dict[str, Any] = {}  # noqa: RUF012 - a constant


def of_size(size: int, shape: Any = (2, 3), datatype: str = "FP64") -> list[Any]:
    return [{"name": "any", "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}}]


HUGE = 1 << 62
BAD = {
    "an unknown model": Bad(404, 'There is no model "nothing".', [WHOLE], path="/v2/models/nothing/infer"),
    "an unknown version": Bad(404, "version", [WHOLE], path=f"{CROPS}/versions/9/infer"),
    "a version that is not a number": Bad(400, "version", [WHOLE], path=f"{CROPS}/versions/one/infer"),
    "an unknown path": Bad(404, "There is nothing at this path.", [WHOLE], path=f"{CROPS}/stats"),
    "another shape": Bad(400, 'Tensor "any": Expected the shape [n, 3], found [3, 2].', [tensor("any", [3, 2], "FP64", [1] * 6)]),
    "a row without its dimension": Bad(400, "Expected the shape [n, 3], found [3]", [tensor("any", [3], "FP64", [1, 2, 3])]),
    "a shape that data does not have": Bad(400, "The shape has 300 value(s), and `data` has 6", [tensor("any", [100, 3], "FP64", [1] * 6)]),
    "a shape whose product overflows": Bad(400, "At most 5000 rows", [tensor("any", [HUGE, HUGE], "FP64", [1])]),
    "a huge width": Bad(400, f"The shape has {HUGE} value(s)", [tensor("any", [1, HUGE], "FP64", [1])]),
    "a huge width in binary": Bad(400, "`binary_data_size` is 48", of_size(48, [1, HUGE]), content=bytes(48)),
    "a shape of many dimensions": Bad(400, "one or two dimensions, found 100000", [tensor("any", [1] * 100_000, "FP64", [1])]),
    "a negative shape": Bad(400, "not positive", [tensor("any", [-2, -3], "FP64", [1] * 6)]),
    "no rows": Bad(400, "Send at least one row", [tensor("any", [0, 3], "FP64", [])]),
    "too many rows": Bad(400, "At most 5000 rows", [tensor("any", [5001, 3], "FP64", [1] * 15003)]),
    "too many rows in binary": Bad(400, "At most 5000 rows", of_size(120_024, [5001, 3]), content=bytes(120_024)),
    "another datatype": Bad(400, "The datatype is not supported", [tensor("any", [2, 3], "FP128", [1] * 6)]),
    "numbers as texts": Bad(400, "Expected numbers, found BYTES. Send numbers as one of", [tensor("any", [1, 3], "BYTES", ["1", "2", "3"])]),
    "a text among numbers": Bad(400, 'Tensor "any", index 0, 1: Expected a number, found a string', [tensor("any", [1, 3], "FP64", [1, "2", 3])]),
    "booleans for numbers": Bad(400, "found BOOL. Send 1 or 0 as INT8", [tensor("any", [1, 3], "BOOL", [True] * 3)]),
    "numbers as texts for a feature": Bad(400, 'Tensor "age": Expected numbers, found BYTES', [tensor(name, [1], "BYTES", ["1"]) for name in ("species", "age", "wild", "island", "seen")], path=f"{PENGUINS}/infer"),
    "an integer out of range": Bad(400, "index 0, 2: The integer is not in the range of UINT8", [tensor("any", [1, 3], "UINT8", [1, 2, 256])]),
    "NaN": Bad(400, 'Tensor "any", index 1, 2: The value is missing', of_size(48), content=np.array([1, 2, 3, 4, 5, np.nan]).tobytes()),
    "infinity": Bad(400, 'Tensor "any", index 0, 1: The number is not finite', of_size(48), content=np.array([1, np.inf, 3, 4, 5, 6]).tobytes()),
    "NaN in JSON": Bad(400, "index 0, 1: The value is missing", body=b'{"inputs":[{"name":"any","shape":[1,3],"datatype":"FP64","data":[1,NaN,3]}]}'),
    "an unknown feature": Bad(400, 'Tensor "rain": The model has no such feature.', [BY_FEATURE[0], tensor("rain", [2], "FP64", [1, 2]), BY_FEATURE[2]]),
    "a feature without a tensor": Bad(400, 'There is no tensor for "rainfall"', [BY_FEATURE[0], BY_FEATURE[2]]),
    "a feature twice": Bad(400, "given more than once", [BY_FEATURE[0], BY_FEATURE[0], BY_FEATURE[2]]),
    "a feature of several columns": Bad(400, 'Tensor "temp": Expected the shape [n] or [n, 1]', [tensor("temp", [1, 2], "FP64", [1, 2]), *BY_FEATURE[1:]]),
    "features of several lengths": Bad(400, 'The tensor has 2 row(s), and "temp" has 3', [tensor("temp", [3], "FP64", [1, 2, 3]), *BY_FEATURE[1:]]),
    "numbers in a tensor of texts": Bad(400, 'Tensor "all": "age" is a number. Send one tensor for each feature.', [tensor("all", [1, 5], "BYTES", ["Gentoo", "2", "3", "4", "5"])], path=f"{PENGUINS}/infer"),
    "an unknown level": Bad(400, 'Tensor "species", index 0: ', [tensor("species", [1], "BYTES", ["Emperor"]), tensor("age", [1], "FP64", [2]), tensor("wild", [1], "BOOL", [True]), tensor("island", [1], "BYTES", ["Dream"]), tensor("seen", [1], "BYTES", ["2008-01-01"])], path=f"{PENGUINS}/infer"),
    "infinity in JSON": Bad(400, "index 0, 0: The number is not finite", body=b'{"inputs":[{"name":"any","shape":[1,3],"datatype":"FP64","data":[1e999,2,3]}]}'),
    "truncated binary": Bad(400, "`binary_data_size` is 48, and the rest of the body has 40", of_size(48), content=bytes(40)),
    "bytes left over": Bad(400, "8 byte(s) follow the last tensor", of_size(48), content=bytes(56)),
    "a size that is not that of the shape": Bad(400, "`binary_data_size` is 40", of_size(40), content=bytes(40)),
    "a huge size": Bad(400, "`binary_data_size` is 4611686018427387904", of_size(HUGE), content=bytes(48)),
    "a negative size": Bad(400, "binary_data_size", of_size(-1), content=bytes(48)),
    "elements whose length lies": Bad(400, "The element is cut off", of_size(24, [1, 3], "BYTES"), content=b"\xff\xff\xff\x7f" * 6),
    "a length of JSON that is too large": Bad(400, "Inference-Header-Content-Length is not valid", [WHOLE], headers={LENGTH: "1000000"}),
    "a length of JSON that is huge": Bad(400, "Inference-Header-Content-Length is not valid", [WHOLE], headers={LENGTH: "9" * 5000}),
    "a length of JSON that is not a number": Bad(400, "Inference-Header-Content-Length is not valid", [WHOLE], headers={LENGTH: "-5"}),
    "a length of JSON that is zero": Bad(400, "Inference-Header-Content-Length is not valid", [WHOLE], headers={LENGTH: "0"}),
    "a length of JSON that is too small": Bad(400, "not JSON", [WHOLE], headers={LENGTH: "20"}),
    "a length of JSON that includes the tensors": Bad(400, "The body is not JSON", body=json.dumps({"inputs": of_size(48)}).encode() + bytes(48), headers={LENGTH: str(len(json.dumps({"inputs": of_size(48)})) + 48)}),
    "binary without the length of JSON": Bad(400, "the header Inference-Header-Content-Length is missing", body=json.dumps({"inputs": of_size(48)}).encode() + bytes(48)),
    "data and a size": Bad(400, "either `data` or `binary_data_size`", [{**WHOLE, "parameters": {"binary_data_size": 8}}], content=bytes(8)),
    "neither data nor a size": Bad(400, "either `data` or `binary_data_size`", [{"name": "any", "shape": [1, 3], "datatype": "FP64"}]),
    "shared memory": Bad(400, "Shared memory is not supported", [{"name": "any", "shape": [1, 3], "datatype": "FP64", "parameters": {"shared_memory_region": "a"}}]),
    "an unknown output": Bad(400, 'There is no output "aples". Did you mean "apples"?', [WHOLE], members={"outputs": [{"name": "aples"}]}),
    "a bound without an interval": Bad(400, "Set `interval`", [WHOLE], members={"outputs": [{"name": "apples_lower"}]}),
    "the name of a target and of a bound": Bad(400, 'Two outputs would have the name "y_lower", because a target has this name too.', [tensor("x0", [1], "FP64", [1])], path="/v2/models/bounded/infer", members={"parameters": {"interval": 0.9}}),
    "an output twice": Bad(400, "requested more than once", [WHOLE], members={"outputs": [{"name": "apples"}] * 2}),
    "a level of an interval": Bad(400, "interval", [WHOLE], members={"parameters": {"interval": 95}}),
    "no inputs": Bad(400, "inputs", []),
    "a document of another type": Bad(400, "Expected", body=b"[]"),
    "no body": Bad(400, "The body is empty", body=b""),
    "a document that ends early": Bad(400, "not JSON", body=b'{"inputs":['),
    "deep nesting": Bad(400, "not JSON", body=b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP64","data":' + b"[" * 60_000),
    "an id of another type": Bad(400, "id", [WHOLE], members={"id": 7}),
    "an unknown encoding": Bad(415, "gzip, deflate or zstd", [WHOLE], headers={"content-encoding": "br"}),
    "too many bytes": Bad(413, "4000000", body=b" " * 4_000_001),
    "many small arrays": Bad(413, "bytes of memory", body=b'{"inputs":[{"name":"any","shape":[1,3],"datatype":"FP64","data":[' + b"[]," * 1_300_000 + b"[]]}]}"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_request_gets_one_sentence_in_the_shape_of_the_protocol(guarded: Service, bad: Bad) -> None:
    document = {"inputs": bad.inputs, **bad.members} if bad.body is None else bad.body
    contents = [bad.content] if bad.content else []
    with guarded.growing_by_less_than(200 << 20):
        answer = post(guarded, bad.path, document, *contents, **bad.headers)
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert bad.message in answer.json()["error"]
    assert len(answer.content) < 3000


def test_two_lengths_of_json_are_refused(guarded: Service) -> None:
    described, content = binary("any", [2, 3], "FP64", ROWS.tobytes())
    document = json.dumps({"inputs": [described]}).encode()
    headers = [(LENGTH, str(len(document)))] * 2
    answer = guarded.client.post(f"{CROPS}/infer", content=document + content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Inference-Header-Content-Length is not valid.")


def test_other_methods_and_paths_below_v2_get_the_same_shape(guarded: Service) -> None:
    for method, path, status in (
        ("PUT", CROPS, 405),
        ("GET", f"{CROPS}/infer", 405),
        ("GET", f"{CROPS}/config", 404),
        ("POST", "/v2/repository/models/crop-yield/load", 404),
        ("GET", "/v2/nothing", 404),
    ):
        answer = guarded.client.request(method, path)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]


def test_a_large_binary_tensor_is_read_within_its_memory(guarded: Service) -> None:
    rows = np.random.default_rng(0).integers(0, 99, (5000, 3)).astype(np.float64)
    rows[:, 1] = 44.2752  # Its bytes in ASCII have commas, quotes and brackets.
    commas = np.frombuffer(b',"[{,"[@' * 5000, "<f8")
    rows[:, 2] = commas
    with guarded.growing_by_less_than(30 << 20):
        found = infer(guarded, [binary("any", rows.shape, "FP64", rows.tobytes())])
    equal(found["predict"][:10], native(guarded, rows[:10].tolist())["predictions"])


def test_the_values_of_a_wide_body_are_counted_by_the_datatypes_that_it_names() -> None:
    assert _smallest_value(b'{"datatype":"FP64"}') == 8
    assert _smallest_value(b'{"datatype":"FP64"},{"datatype":"UINT16"}') == 2
    for one in (b'{"datatype":"BOOL"}', b'{"datatype":"BYTES"}', b'{"datatype":"\\u0049NT8"}', b'{"datatype":"?"}'):
        assert _smallest_value(one + b'{"datatype":"FP64"}' * one.startswith(b'{"datatype":"B')) == 1
