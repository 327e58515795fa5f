"""Simulator, faults, history, checkers: what shows that keys reach exactly those who should have them."""
