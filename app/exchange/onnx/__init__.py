"""ONNX in both directions: `reader` follows the nodes of a graph, and `writer` writes MatMul and Add in double."""
