import sys

import litserve
import numpy as np


class Linear(litserve.LitAPI):
    def setup(self, device):
        self.weights = np.random.default_rng(0).normal(size=(3, 2))

    def decode_request(self, request):
        return np.array(request["instances"])

    def predict(self, x):
        return x @ self.weights

    def encode_response(self, y):
        return {"predictions": y.tolist()}


if __name__ == "__main__":
    litserve.LitServer(Linear(), accelerator="cpu").run(port=int(sys.argv[1]), generate_client_file=False)
