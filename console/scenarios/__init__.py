"""`otway demo`: one scenario a file, and what they share."""
