"""The order of things, one module per verb: what runs in the launching process, and what in its workers."""
