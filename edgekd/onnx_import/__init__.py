"""An ONNX graph as a torch.fx.GraphModule: differentiable with respect to its inputs, weights as buffers.

It does not train the imported graph, run control flow, or handle strings and sequences.
"""

from edgekd.onnx_import.importing import import_onnx, unsupported

__all__ = ["import_onnx", "unsupported"]
