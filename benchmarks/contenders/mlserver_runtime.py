import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Linear(MLModel):
    async def load(self):
        self.weights = np.random.default_rng(0).normal(size=(10, 2))
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("predictions", x @ self.weights[: x.shape[1]])]
        )
