"""A call between two codecs, as the transcoder has it; agents/transcoder.py finds the call."""
