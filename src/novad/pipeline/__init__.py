"""Running a line's pipeline: DVC says what is stale and runs it, locks keep runs apart."""
