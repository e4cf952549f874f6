"""Find images in folders and zips, decode them, and put them into batches."""
