"""Write beside and rename, completion marks, what made an output, and the run lock."""
