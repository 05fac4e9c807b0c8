"""The input of a run: files and Ray Datasets as numbered blocks of rows."""
