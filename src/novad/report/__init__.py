"""The quality report: one page that tells whether a version may judge parts, and on what evidence."""
