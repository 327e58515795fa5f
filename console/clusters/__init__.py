"""`otway cluster`: what compose.yaml runs once."""
