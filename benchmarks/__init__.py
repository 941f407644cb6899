"""The emulator and the compiler beside ONNX Runtime, on the paper's networks: `python -m benchmarks`."""
