"""The linear regression of scikit-learn-intelex, on rows that this process makes itself. Uses all cores.

For each line that it reads, it fits once and writes the seconds and the coefficients, as JSON.
"""

import json
import sys
import time

import numpy as np
from sklearnex.linear_model import LinearRegression

count, features, targets = map(int, sys.argv[1:])
random = np.random.default_rng(0)
x = random.normal(size=(count, features))
y = x @ random.normal(size=(features, targets)) + random.normal(size=(count, targets))
for _ in sys.stdin:
    started = time.perf_counter()
    coef = LinearRegression().fit(x, y).coef_
    print(json.dumps([time.perf_counter() - started, coef.tolist()]), flush=True)
