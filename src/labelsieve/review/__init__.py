"""What a person answered about labels, and what follows from it."""
