"""What is done with a trained classifier: predict, look inside, hand it on."""
