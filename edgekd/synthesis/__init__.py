"""Where images come from when there are none: a generator's losses, procedural priors, and the bank that keeps them."""
