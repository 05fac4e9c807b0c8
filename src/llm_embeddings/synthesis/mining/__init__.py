"""Hard negatives from a corpus: a pool of passages, the best candidates, the choice among them."""
