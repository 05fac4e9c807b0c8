"""Speed and memory against the peers, in one run; see README.md beside this file."""
