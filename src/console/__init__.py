"""All output on the terminal, of the launching process and of workers."""
