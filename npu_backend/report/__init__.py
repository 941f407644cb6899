"""What a compiled and timed program means in figures and text: pure functions, without TVM."""
