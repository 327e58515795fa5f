"""What follows in a conference, for the focus."""
