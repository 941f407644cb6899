"""The passes, one a file: each a pure function from one stage to the next."""
