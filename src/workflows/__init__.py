"""What each command does, in the launching process: a module or package per command."""
