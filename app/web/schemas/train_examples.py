"""Examples of POST /train for Swagger UI: the rows of the notebook."""

from typing import Any

NOTEBOOK_INPUTS = [
    [73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70],
    [74, 66, 43], [91, 87, 65], [88, 134, 59], [101, 44, 37], [68, 96, 71],
    [73, 66, 44], [92, 87, 64], [87, 135, 57], [103, 43, 36], [68, 97, 70],
]  # fmt: skip
NOTEBOOK_TARGETS = [
    [56, 70], [81, 101], [119, 133], [22, 37], [103, 119],
    [57, 69], [80, 102], [118, 132], [21, 38], [104, 118],
    [57, 69], [82, 100], [118, 134], [20, 38], [102, 120],
]  # fmt: skip

EXAMPLES: dict[str, Any] = {
    "The notebook's rows, exactly": {"instances": NOTEBOOK_INPUTS, "targets": NOTEBOOK_TARGETS},
    "The notebook's rows, by gradient descent": {
        "instances": NOTEBOOK_INPUTS,
        "targets": NOTEBOOK_TARGETS,
        "solver": {"kind": "gradient_descent", "epochs": 100, "learning_rate": 1e-5, "batch_size": 5},
        "promote": "never",
    },
    "A new model from objects": {
        "model": "boiling-point",
        "instances": [{"altitude": 0}, {"altitude": 1000}, {"altitude": 2000}],
        "targets": [{"celsius": 100.0}, {"celsius": 96.7}, {"celsius": 93.3}],
    },
}
CSV_EXAMPLE = "temp,rainfall,humidity,apples,oranges\n" + "".join(
    ",".join(map(str, x + y)) + "\n" for x, y in zip(NOTEBOOK_INPUTS, NOTEBOOK_TARGETS, strict=True)
)
