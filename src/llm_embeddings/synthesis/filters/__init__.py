"""Which synthetic rows are good enough to train on."""
