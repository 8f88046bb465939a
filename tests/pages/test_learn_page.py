"""The notebook page: its numbers, its commands, and what the learner changes."""

import html
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from service import INPUTS, JOB_SECONDS, TARGETS, Service

from app.regression import worked_example as example
from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.solvers.scaler import largest_learning_rate
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch
from app.regression.worked_example import ALL, FIVE, START, Table, descend

HTML = {"accept": "text/html"}


def read(site: Service, query: str = "") -> httpx.Response:
    return site.client.get(f"/learn{query}", headers=HTML)


def commands(page: str) -> Iterator[str]:
    """Yield the commands of the page in its order."""
    for text in re.findall(r'<pre id="curl-[^>]*><code>(.*?)</code></pre>', page, re.DOTALL):
        yield html.unescape(text)


def documents(text: str) -> list[Any]:
    """Return the JSON values that follow each other in a text."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def test_the_steps_have_the_losses_of_the_notebook() -> None:
    losses = descend(FIVE, START, 1e-5, 202).losses

    assert [losses[step] for step in (0, 1, 2, 102, 202)] == pytest.approx(
        [16740.3, 11840.2, 8531.4, 530.45, 184.35], rel=1e-4
    )


def test_the_bound_is_that_of_the_service_and_divergence_begins_there() -> None:
    bound = FIVE.largest_learning_rate
    assert bound == pytest.approx(
        largest_learning_rate(summarise([TrainingBatch(FIVE.x, FIVE.y)]), GradientDescent()), rel=1e-12
    )
    below, above = (descend(FIVE, START, factor * bound, 3000).losses for factor in (0.999, 1.001))
    assert below[-1] < below[1000] < below[0]
    assert above[-1] > above[1500] > above[1400]
    assert descend(FIVE, START, 1.0, 100).overflowed


def test_the_optimum_is_that_of_the_shipped_table() -> None:
    assert (ALL.x.tolist(), ALL.y.tolist()) == (INPUTS, TARGETS)
    assert ALL.loss(ALL.optimum) == pytest.approx(0.9094, rel=1e-4)
    new = Table(ALL.x[:1] * 0 + example.NEW_REGION, ALL.y[:1])
    assert new.predict(ALL.optimum)[0] == pytest.approx([53.80, 66.81], abs=0.005)


def test_the_page_shows_the_computed_numbers(site: Service) -> None:
    page = read(site)

    assert page.status_code == 200
    for number in ("16741.3", "11840.9", "8531.87", "530.454", "184.351", "0.0001117", "0.9094", "53.80", "66.81"):
        assert number in page.text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?rate=quick", "Expected a learning rate above 0 and at most 1, such as 1e-5 or 0.0001."),
        ("?rate=nan", "Expected a learning rate above 0 and at most 1, such as 1e-5 or 0.0001."),
        ("?rate=2", "Expected a learning rate above 0 and at most 1, such as 1e-5 or 0.0001."),
        ("?steps=1001", "Expected a whole number of steps from 1 to 1000."),
        ("?steps=%D9%A3", "Expected a whole number of steps from 1 to 1000."),
        ("?pace=1", "There is no such option: &#34;pace&#34;."),
    ],
)
def test_a_bad_value_gets_the_page_with_a_message(site: Service, query: str, message: str) -> None:
    answer = read(site, query)

    assert answer.status_code == 422
    assert message in answer.text
    assert "184.351" in answer.text or "530.454" in answer.text


def test_hostile_values_are_escaped(site: Service) -> None:
    script = "<script>alert(1)</script>"
    answer = site.client.get("/learn", params={"rate": script, "steps": f'"{script}', script: "1"}, headers=HTML)

    assert answer.status_code == 422
    assert script not in answer.text


@pytest.mark.parametrize("query", ["?rate=1&steps=1000", "?rate=1e-300&steps=1", "?rate=5e-324", "?rate=&steps="])
def test_extreme_values_have_a_page(site: Service, query: str) -> None:
    answer = read(site, query)

    assert answer.status_code == 200
    assert "NaN" not in answer.text
    assert len(answer.content) < 100_000


@pytest.mark.slow
def test_the_commands_of_the_page_take_its_steps(site: Service, tmp_path: Path) -> None:
    outputs = []
    for command in commands(read(site).text):
        quiet = command.replace("curl ", "curl --silent --show-error --fail-with-body ").replace(
            "wait=10", f"wait={JOB_SECONDS:.0f}"
        )
        done = subprocess.run(["bash", "-euc", quiet], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        outputs.append(documents(done.stdout))

    read_rows, weights, loss, two_steps, more_steps, above, built_ins, exact = outputs
    losses = descend(FIVE, START, 1e-5, 202).losses
    assert read_rows[0]["rows"] == 5
    assert np.array(weights[1]["predictions"]) == pytest.approx(FIVE.predict(START), rel=1e-12)
    assert loss[0]["loss_curve"][0] == [0, pytest.approx(losses[0], rel=1e-12)]
    assert [at for _, at in two_steps[0]["loss_curve"]] == pytest.approx(losses[:3], rel=1e-12)
    assert [job["progress"]["loss"] for job in more_steps] == pytest.approx([losses[102], losses[202]], rel=1e-10)
    assert above[0]["status"] == "failed"
    assert "below 0.0001116." in above[0]["error"]["detail"]  # the bound, rounded down
    assert built_ins[0]["status"] == "succeeded"
    assert exact[0]["metrics"]["mse"] == pytest.approx(ALL.loss(ALL.optimum), rel=1e-9)
    assert exact[1]["predictions"][0] == pytest.approx([53.80, 66.81], abs=0.005)


def test_the_learner_changes_the_learning_rate_and_sees_divergence(
    page: Page, site: Service, assert_accessible: Callable[[Page], None], assert_fits: Callable[[Page], None]
) -> None:
    page.goto(f"{site.url}/learn")
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("Converges")
    page.get_by_label("Learning rate", exact=True).fill("0.000113")
    page.get_by_label("Steps", exact=True).fill("20")
    page.keyboard.press("Enter")

    expect(verdict).to_contain_text("Diverges")
    expect(page.get_by_role("heading", name="20 more steps")).to_be_visible()
    expect(page.get_by_role("img", name="Loss below and above the bound")).to_be_visible()
    assert_accessible(page)
    assert_fits(page)


def test_the_page_needs_no_script(open_page: Callable[..., Page], site: Service) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(f"{site.url}/learn?steps=10")
    page.get_by_role("link", name="just above it").click()

    expect(page.locator(".verdict")).to_contain_text("Diverges")
