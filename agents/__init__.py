"""Who acts: one file a role, a plain function of its input; and the loop that runs any of them."""
