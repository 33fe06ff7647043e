"""Many scans as a population: class aliases, duplicate groups, splitting, summaries."""
