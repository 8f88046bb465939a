"""The commands against a real service, with pipes instead of a terminal."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from command import PROGRAM, Command
from service import MODELS, Service

ROWS = b"temp,rainfall,humidity\n75,63,44\n"
APPLES, ORANGES = 53.79556783791256, 66.80653442744479
YIELDS = str(MODELS / "crop-yield" / "yields.csv")
KEY = "a-key-of-this-test"


@pytest.fixture
def command(publishing: Service, tmp_path: Path) -> Command:
    return Command(tmp_path, publishing.url)


@pytest.fixture
def yields(command: Command, request: pytest.FixtureRequest) -> str:
    """A new model with two versions, of 15 rows and of 16."""
    name = str(request.node.name).replace("_", "-")[:60].strip("-[]")
    command.good("train", YIELDS, "--target", "apples,oranges", "--model", name)
    row = b"temp,rainfall,humidity,apples,oranges\n80,90,55,84,100\n"
    command.good("train", "-", "--model", name, "--update", stdin=row)
    return name


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_a_training_shows_its_job_and_publishes_a_version(command: Command) -> None:
    ended = command.good("train", YIELDS, "--target", "apples", "--drop", "oranges", "--model", "shown", "--folds", "5")
    fields = dict(line.split("\t") for line in ended.lines)
    assert fields["status"] == "succeeded"
    assert fields["version"] == "1"
    assert 0.99 < float(fields["r2[apples]"]) < 1
    assert ended.error == ""
    card = json.loads(command.good("show", "shown", "--json").text)
    assert card["features"] == ["temp", "rainfall", "humidity"]
    assert card["validation"]["folds"] == 5


@pytest.mark.slow
def test_options_without_a_name_of_their_own_reach_the_training(command: Command) -> None:
    rows = b"a;b;y\n1,5;2;3\n2,5;1;4\n3,5;7;9\n4,5;1;2\n"
    ended = command.good(
        "train", "-", "--target", "y", "--model", "semicolons", "--terms", "a,a^2", "-O", "sep=;", "--option",
        "decimal=,", "--json", stdin=rows,
    )  # fmt: skip
    assert json.loads(ended.text)["status"] == "succeeded"
    card = json.loads(command.good("show", "semicolons@1", "--json").text)
    assert list(card["coefficients"]["y"]) == ["a", "a^2"]


@pytest.mark.slow
def test_a_request_in_json_gets_the_options_too(command: Command) -> None:
    rows = b'{"instances": [{"a": 1}, {"a": 2}, {"a": 4}], "targets": [{"y": 1}, {"y": 3}, {"y": 4}]}'
    ended = command.good("train", "-", "--model", "fromjson", "--l2", "0.5", "--json", stdin=rows)
    assert json.loads(ended.text)["model"] == "fromjson"
    assert json.loads(command.good("show", "fromjson", "--json").text)["solver"]["l2"] == 0.5


def test_a_training_that_fails_exits_with_1_and_names_the_place(command: Command) -> None:
    ended = command("train", "-", "--target", "y", "--model", "fails", stdin=b"a,y\n1,2\nwide,3\n4,5\n6,7\n")
    assert ended.status == 1
    assert "Error: " in ended.error
    assert "row 3" in ended.error.lower()
    assert "Traceback" not in ended.error


def test_a_training_need_not_be_waited_for(command: Command) -> None:
    train = ("train", YIELDS, "--target", "apples,oranges", "--model", "later", "--no-wait", "--json")
    endless = ("--solver", "gradient_descent", "--epochs", "100000000", "--learning-rate", "0.00001")
    # The next training of the model begins only when this one ends, so it cannot end before it is returned.
    first = json.loads(command.good(*train, *endless).text)
    job = json.loads(command.good(*train).text)
    assert (first["finished_at"], job["finished_at"]) == (None, None)
    command.good("cancel", first["id"])
    changes = [json.loads(line) for line in command.good("watch", job["id"], "--json").lines]
    assert changes[-1]["status"] == "succeeded"
    assert {change["id"] for change in changes} == {job["id"]}
    assert "succeeded" in command.good("watch", job["id"]).text
    assert table(command.good("jobs", "--model", "later").text)[0]["id"] == job["id"]
    assert "succeeded" in command.good("cancel", job["id"]).text  # It has ended, and stays as it is.


@pytest.mark.slow
def test_versions_are_listed_promoted_and_rolled_back(command: Command, yields: str) -> None:
    assert [row["version"] for row in table(command.good("versions", yields).text)] == ["2", "1"]
    assert [row["current"] for row in table(command.good("versions", yields, "--limit", "1").text)] == ["yes"]
    assert command.good("rollback", yields).text == f"Version 1 of {yields} is current.\n"
    ended = command("rollback", yields)
    assert (ended.status, ended.output) == (1, b"")
    assert json.loads(command.good("promote", yields, "2", "--json").text)["version"] == 2
    ended = command("promote", yields, "9")
    assert ended.status == 1
    assert "no version 9" in ended.error
    item = next(item for item in map(json.loads, command.good("models", "--json").lines) if item["model"] == yields)
    assert (item["current"], item["versions"]) == (2, [1, 2])


@pytest.mark.slow
def test_forgotten_rows_are_out_of_the_next_version(command: Command, yields: str) -> None:
    row = b"temp,rainfall,humidity,apples,oranges\n80,90,55,84,100\n"
    command.good("train", "-", "--model", yields, "--forget", stdin=row)
    assert json.loads(command.good("show", yields, "--json").text)["rows"] == 15


def test_an_inspection_is_a_row_for_each_column_and_trains_nothing(command: Command) -> None:
    rows = b"id,city,area,rent\na1,Oslo,40,9\na2,Bergen,,8\na3,Oslo,60,11\na4,Bergen,70,12\n"
    ended = command.good("inspect", "-", "--target", "rent", stdin=rows)
    assert [(row["name"], row["role"], row["kind"], row["gaps"]) for row in table(ended.text)] == [
        ("city", "feature", "category", "0"), ("area", "feature", "number", "1"), ("rent", "target", "number", "0"),
    ]  # fmt: skip
    assert "Left out: id (identifier)." in ended.error


def test_a_version_and_a_model_are_deleted(command: Command, publishing: Service) -> None:
    for _ in range(2):
        publishing.train(
            model="doomed", instances=[{"a": 1}, {"a": 2}, {"a": 4}], targets=[{"y": 1}, {"y": 3}, {"y": 4}]
        )
    assert command.good("delete", "doomed@1").text == "Deleted version 1 of doomed.\n"
    assert command.good("delete", "doomed", "--json").text == ""
    ended = command("delete", "doomed")
    assert (ended.status, ended.output) == (1, b"")
    assert "There is no model" in ended.error


@pytest.mark.slow
def test_version_files_are_merged_and_taken_out_again(command: Command) -> None:
    header, *rows = Path(YIELDS).read_text().splitlines()
    for site in ("north", "south"):
        table_of_site = "\n".join([header, *rows, *rows]).encode()
        command.good("train", "-", "--target", "apples,oranges", "--model", site, stdin=table_of_site)
        command.good("export", site, "--format", "linserve", "-o", f"{site}.safetensors", "-q")
    command.good("merge", "region", "north.safetensors", "south.safetensors")
    assert json.loads(command.good("show", "region", "--json").text)["rows"] == 60
    ended = command.good("merge", "region", "north.safetensors", "--forget", "--json")
    assert json.loads(ended.text)["version"] == 2
    assert json.loads(command.good("show", "region", "--json").text)["rows"] == 30
    assert command("merge", "region", YIELDS).status == 1


def test_a_card_is_a_table_of_coefficients_with_standard_errors(command: Command) -> None:
    ended = command.good("show", "crop-yield@1")
    head, _, rest = ended.text.partition("\n\n")
    assert "rows\t15" in head.splitlines()
    rows = table(rest)
    assert [(row["target"], row["column"]) for row in rows[:2]] == [("apples", "intercept"), ("apples", "temp")]
    card = json.loads(command.good("show", "crop-yield@1", "--json").text)
    assert float(rows[1]["coefficient"]) == card["coefficients"]["apples"]["temp"]
    assert float(rows[1]["standard_error"]) == card["standard_errors"]["apples"]["temp"]


@pytest.mark.parametrize(
    "selector",
    ["crop-yield@current", *(pytest.param(f"crop-yield{end}", marks=pytest.mark.slow) for end in ("", "@1"))],
)
def test_predictions_have_the_format_of_the_rows(command: Command, selector: str) -> None:
    ended = command.good("predict", "-", "--model", selector, stdin=ROWS)
    assert ended.output == f"apples,oranges\n{APPLES},{ORANGES}\n".encode()
    assert ended.error == ""


@pytest.mark.slow
def test_intervals_and_kept_columns_are_added(command: Command) -> None:
    rows = b"field,temp,rainfall,humidity\nnorth,75,63,44\n"
    ended = command.good(
        "predict", "-", "--interval", "0.95", "--keep", "field", "--format", "ndjson", "--quiet", stdin=rows
    )
    row = json.loads(ended.text)
    assert row["field"] == "north"
    assert row["apples_lower"] < row["apples"] < row["apples_upper"]


def test_arrow_goes_through_pipes(command: Command) -> None:
    rows = pa.table({"temp": [75.0, None], "rainfall": [63.0, 1.0], "humidity": [44.0, 1.0]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    ended = command.good("predict", "-", stdin=sink.getvalue())
    assert pa.ipc.open_stream(ended.output).read_all().column("apples").to_pylist() == [APPLES, None]
    assert ended.error == 'Warning: 1 row(s) have no prediction: gaps: "temp" 1.\n'


@pytest.mark.slow
def test_the_extension_of_the_output_decides_its_format(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    ended = command.good("predict", "rows.csv", "-o", "out.ndjson")
    assert json.loads((tmp_path / "out.ndjson").read_text()) == {"apples": APPLES, "oranges": ORANGES}
    assert ended.output == b""
    assert ended.error == "Predicted by crop-yield, version 1.\n"
    assert command("predict", "rows.csv", "-o", "missing/out.csv").status == 1


def test_a_faulty_row_is_named_and_leaves_the_output_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("as it was")
    ended = command("predict", "-", "-o", "out.csv", stdin=b"temp,rainfall,humidity\n75,wet,44\n")
    assert (ended.status, ended.output) == (1, b"")
    assert "row 2" in ended.error.lower()
    assert "rainfall" in ended.error
    assert (tmp_path / "out.csv").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        pytest.param(b"[[75, 63, 44]]", marks=pytest.mark.slow),
        pytest.param(b'{"temp": 75, "rainfall": 63, "humidity": 44}', marks=pytest.mark.slow),
    ],
)
def test_contributions_sum_to_the_prediction(command: Command, rows: bytes) -> None:
    found = table(command.good("predict", "-", "--explain", stdin=rows).text)
    apples = {row["column"]: float(row["contribution"]) for row in found if row["target"] == "apples"}
    assert apples.pop("prediction") == APPLES
    assert sum(apples.values()) == pytest.approx(APPLES)
    assert list(apples) == ["baseline", "temp", "rainfall", "humidity"]


def test_an_explanation_is_of_the_numbers_that_the_service_reads(command: Command) -> None:
    rows = [("1.000,5", "a", 2001), ("2.000,5", "b", 4002), ("3.100,5", "a", 6201), ("4.500,0", "b", 9001)]
    training = "".join(f"{size};{kind};{price}\n" for size, kind, price in [("size", "kind", "price"), *rows])
    options = ("--target", "price", "--model", "grouped", "--terms", "size", "-O", "thousands=.", "-O", "sep=;")
    command.good("train", "-", *options, stdin=training.encode())

    def predictions(*cells: str) -> list[float]:
        content = "".join(f"{cell};a\n" for cell in ("size", *cells)).replace("size;a", "size;kind").encode()
        served = command.good("predict", "-", "--model", "grouped", "--format", "ndjson", stdin=content).lines
        found = table(command.good("predict", "-", "--model", "grouped", "--explain", stdin=content).text)
        explained = [float(row["contribution"]) for row in found if row["column"] == "prediction"]
        assert explained == pytest.approx([json.loads(line)["price"] for line in served])
        return explained

    assert predictions("1.000,5") == pytest.approx([2001], abs=5)
    assert predictions("1.500") == pytest.approx([3000], abs=5)
    assert predictions("1.5", "20.25") == pytest.approx([4, 41], abs=5)
    ended = command("predict", "-", "--model", "grouped", "--explain", stdin=b"size;kind\n1.500;a\n1.5;a\n")
    assert (ended.status, ended.output) == (1, b"")
    assert "Row 1 of standard input has a value that this command reads differently" in ended.error
    ended = command("predict", "-", "--model", "grouped", "--explain", stdin=b"size;kind\n1.5\n")
    assert (ended.status, ended.output) == (1, b"")
    assert "Row 2: Expected 2 values, found 1." in ended.error


def test_rows_that_cannot_be_explained_are_counted_with_the_reasons(command: Command) -> None:
    rows = b"temp,rainfall,humidity\n75,63,44\n75,,44\n"
    ended = command.good("predict", "-", "--explain", stdin=rows)
    assert {row["row"] for row in table(ended.text)} == {"1"}
    assert ended.error == 'Warning: 1 row(s) have no prediction: gaps: "rainfall" 1.\n'


@pytest.mark.slow
def test_json_of_predictions_is_that_of_the_service(command: Command) -> None:
    result = json.loads(command.good("predict", "-", "--json", stdin=ROWS).text)
    assert result["predictions"] == [{"apples": APPLES, "oranges": ORANGES}]
    explained = json.loads(command.good("predict", "-", "--json", "--explain", stdin=ROWS).text)
    assert explained["contributions"][0]["apples"].keys() == {"temp", "rainfall", "humidity"}


@pytest.mark.slow
def test_an_evaluation_is_a_row_for_each_version_segment_and_target(command: Command, yields: str) -> None:
    rows = table(command.good("evaluate", YIELDS, "--model", yields, "--versions", "1,2").text)
    assert [(row["version"], row["target"], row["rows"]) for row in rows] == [
        ("1", "apples", "15"), ("1", "oranges", "15"), ("2", "apples", "15"), ("2", "oranges", "15"),
    ]  # fmt: skip
    by_temp = table(command.good("evaluate", YIELDS, "--by", "temp").text)
    assert {row["temp"] for row in by_temp} >= {"", "73"}


FAILURES = [
    (("show", "crop-yield@best"), "is not an alias of crop-yield. Aliases: current."),
    (("watch", "../models"), "Error: There is nothing at this path"),
    (("show", "nope"), "Error: There is no model"),
    (("show", "crop-yield@7"), "has no version 7"),
    (("versions", "nope"), "Error: There is no model"),
    (("cancel", "nope"), "Error: There is no such job"),
    (("promote", "crop-yield", "7"), "has no version 7"),
    (("models", "--url", "http://127.0.0.1:1"), "cannot be reached"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [*FAILURES[:2], *(pytest.param(*failure, marks=pytest.mark.slow) for failure in FAILURES[2:])],
)
def test_a_failure_is_one_sentence_and_status_1(command: Command, arguments: tuple[str, ...], sentence: str) -> None:
    ended = command(*arguments)
    assert (ended.status, ended.output) == (1, b"")
    assert sentence in ended.error
    assert "Traceback" not in ended.error


def test_a_closed_pipe_is_no_error(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS + b"75,63,44\n" * 50_000)
    script = f"set -o pipefail; '{PROGRAM[0]}' -m linserve predict rows.csv | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=command.environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"apples,oranges\n", b"")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"tester admin {sha256(KEY.encode()).hexdigest()}\n")
    service = Service(tmp_path, trainer_mode="external", api_keys_file=str(keys)).start()
    yield service
    service.stop()


@pytest.mark.slow
def test_the_key_is_found_in_each_place_and_sent_to_the_stored_service_only(guarded: Service, tmp_path: Path) -> None:
    command = Command(tmp_path, guarded.url)
    refused = command("models")
    assert refused.status == 1
    assert "linserve config set api-key" in refused.error
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert command("models", "--api-key-file", "key").status == 0
    assert command("models", "--api-key-file", "-", stdin=KEY.encode()).status == 0
    assert command("models", LINSERVE_API_KEY=KEY).status == 0
    assert command("models", LINSERVE_API_KEY=KEY[1:]).status == 1
    command.good("config", "set", "url", "http://localhost:1")
    command.good("config", "set", "api-key", stdin=KEY.encode())
    assert command("models").status == 1  # The key is for another address.
    command.good("config", "set", "url", guarded.url)
    command.good("config", "set", "api-key", stdin=KEY.encode())
    assert command("models", LINSERVE_URL="").status == 0
    assert command("models", LINSERVE_API_KEY=KEY[1:]).status == 1


@pytest.mark.slow
def test_a_model_goes_out_and_in_again(command: Command, tmp_path: Path) -> None:
    ended = command.good("export", "crop-yield@1", "--format", "json", "-o", "model.json")
    assert "Note: " in ended.error
    assert ended.output == b""
    card = json.loads(command.good("import", "model.json", "--model", "copied", "--json").text)
    assert (card["model"], card["version"]) == ("copied", 1)
    assert command.good("predict", "-", "--model", "copied", stdin=ROWS).output.startswith(b"apples,oranges\n53.7955")
    file = command.good("export", "crop-yield@1", "--format", "linserve").output
    card = json.loads(command.good("import", "-", "--model", "copied", "--json", stdin=file).text)
    assert (card["version"], card["rows"]) == (2, 15)


@pytest.mark.slow
def test_a_layer_needs_names_and_an_export_a_known_format(command: Command) -> None:
    layer = command.good("export", "crop-yield@1", "--format", "safetensors").output
    names = ("--features", "temp,rainfall", "--features", "humidity", "--targets", "apples,oranges")
    card = json.loads(command.good("import", "-", "--model", "layer", *names, "--json", stdin=layer).text)
    assert card["features"] == ["temp", "rainfall", "humidity"]
    assert "SELECT" in command.good("export", "layer", "--format", "sql", "--dialect", "sqlite").text
    ended = command("export", "layer", "--format", "excel")
    assert (ended.status, ended.output) == (1, b"")
    assert "excel" in ended.error


@pytest.mark.slow
def test_names_of_models_are_completed_and_a_missing_service_is_silent(command: Command) -> None:
    def completed(words: str, **changed: str) -> list[str]:
        count = str(len(words.split()) - 1)
        variables = {"_LINSERVE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count, **changed}
        ended = command(stdin=b"", **variables)
        assert ended.error == ""
        return ended.text.split()

    assert completed("linserve show crop-y") == ["crop-yield"]
    assert "crop-yield@1" in completed("linserve export crop-yield@")
    assert completed("linserve versions crop-y", LINSERVE_URL="http://127.0.0.1:1") == []
