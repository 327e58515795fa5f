"""The command `otway`."""
