"""What the KMS does, request by request; agents/kms.py finds what a request needs."""
