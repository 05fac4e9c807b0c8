"""Training data made by a language model (`run`, `filters`) and mined from a corpus (`mine`)."""
