"""The five stages of a line: files in, files out, nothing else."""
