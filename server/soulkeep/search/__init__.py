"""How memories are found: words, dates and ranking, as pure functions."""
