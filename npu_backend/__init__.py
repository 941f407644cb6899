"""A compiler backend for multicore mobile NPUs; knows nothing of TVM."""
