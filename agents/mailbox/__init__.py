"""A message in the mailbox, from its beginning to its end; agents/voicemail.py finds the message."""
