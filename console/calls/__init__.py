"""What a user says to handsets, and hears of them."""
