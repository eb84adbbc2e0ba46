"""What all commands share: help pages, errors of mistyped overrides, printing errors, exit codes."""
