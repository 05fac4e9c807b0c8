"""Training data -> what one update learns from: mixed, filtered, paired, masked, tokenised."""
