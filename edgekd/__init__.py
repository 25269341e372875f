"""edgekd distils a trained ONNX model into a small INT8 model for edge devices, without its training data."""

__version__ = "0.1.0"
__all__ = ["__version__"]
