"""What a study says: statistics, findings in words, tables and one page."""
