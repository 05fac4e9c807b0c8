"""Who runs which rows, when and where: one scheduler behind all threads, coroutines, devices."""
