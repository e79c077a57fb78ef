"""Published files of weights: what they are and under which terms they may be used."""
