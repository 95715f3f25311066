"""From the text of a completion to a number: the one parser, the reward terms, their sum. No torch."""
