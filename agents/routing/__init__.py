"""A call's ways through call control; agents/cscf.py finds the call."""
