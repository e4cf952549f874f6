"""Images: found in folders and zips, decoded, and put into batches."""
