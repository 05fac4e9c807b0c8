"""Who runs which rows, when and where.

A call hands in its rows as jobs and waits for their futures. A worker cuts packs from the jobs
that are there: while it runs one, others arrive, so that full packs come of themselves and nobody
waits for company; with several devices, whichever is free takes the next pack. A worker is a thread
that lives while there is work and a minute longer (a new one would fault in all its memory again);
it ends sooner with the encoder or the interpreter, and a forked child starts its own.

A CPU has two workers: two packs at once, each with half of the cores, run faster than one after the
other with all of them, because the small operations between matrix products gain little from more
cores (14 % at hidden size 512, nothing at 1024).

What one pass can do, and nothing else waits for, runs in the main thread if that is what calls: no
thread has to be woken, and OpenMP, which puts threads to sleep between operations where two of a
process's threads compute, does not.
"""
