import shutil
import sys

import mlflow
import numpy as np
from sklearn.linear_model import LinearRegression

random = np.random.default_rng(0)
shutil.rmtree(sys.argv[1], ignore_errors=True)
model = LinearRegression().fit(random.normal(size=(15, 3)), random.normal(size=(15, 2)))
mlflow.sklearn.save_model(model, sys.argv[1])
