"""What is embedded: files and Ray data sets as numbered blocks of rows."""
