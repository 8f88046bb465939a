"""Use MLflow's client of its scoring server, and print what it returns as JSON."""

import json
import os

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

client = ScoringServerClient(*os.environ["URL"].removeprefix("http://").split(":"))
client.wait_server_ready(timeout=60)
frame = pd.DataFrame({"temp": [75, 91], "rainfall": [63, 88], "humidity": [44, 64]}, index=["a", "b"])
with_gap = frame.astype(float).where(frame["temp"] < 90)
bounds = client.invoke(frame, params={"interval": 0.9}).get_predictions()


def error(data: object, **params: object) -> str:
    """Return the message of the exception that the client raises."""
    try:
        client.invoke(data, params=params or None)
    except Exception as raised:
        return str(raised)
    return ""


print(
    json.dumps(
        {
            "version": client.get_version(),
            "frame": client.invoke(frame).get_predictions("ndarray").tolist(),
            "shuffled": client.invoke(frame[["humidity", "temp", "rainfall"]]).get_predictions("ndarray").tolist(),
            "array": client.invoke(np.array([[75.0, 63.0, 44.0], [91.0, 88.0, 64.0]]))["predictions"],
            "list": client.invoke([[75, 63, 44], [91, 88, 64]])["predictions"],
            "instances": client.invoke(json.dumps({"instances": frame.to_dict("records")}))["predictions"],
            "columns": [*bounds.columns],
            "bounds": bounds.to_numpy().tolist(),
            "gap": error(with_gap.assign(rainfall=63, humidity=44)),
            "without a gap": client.invoke(with_gap, params={"missing": "null"})["predictions"],
            "unknown option": error(frame, top_k=1),
            "missing feature": error(frame[["temp", "humidity"]]),
        }
    )
)
