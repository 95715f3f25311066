"""From the text of a completion to a number: the one parser, the reward terms, their weighted sum. No torch."""
