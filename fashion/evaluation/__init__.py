"""How good a model is, and whether it may take the champion's place. Knows the ONNX network, not torch."""
