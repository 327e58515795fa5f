"""What a handset does; agents/ue.py finds the handset and the call."""
