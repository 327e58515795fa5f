"""How messages travel: the messages, their bytes, the catalogue of topics, the two buses."""
