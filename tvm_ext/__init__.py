"""The TVM front end: ONNX models through TVM's Relax importer to NPU graphs, and packages that TVM's runtime executes.

Importing this package does not import TVM; `driver` does so on first use.
"""
