"""`npuc bench`: the compiler's strategies on the emulator's clock, beside the figures of the paper."""
