"""What the parties prove to each other: pure functions of their arguments, no I/O, no clock, no chance."""
