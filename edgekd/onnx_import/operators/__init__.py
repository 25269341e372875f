"""One ONNX operator family per file; importing a file declares its operators."""
