"""What every folder may use: files, argument checks, memory, intervals, words, progress, results, provenance."""
