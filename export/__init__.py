"""Export: from PyTorch or ready ONNX files to a Triton model repository."""

import os

# ONNX Runtime tells its makers over the network that it is used, unless this forbids it before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
