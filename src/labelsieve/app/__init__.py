"""`labelsieve review`: a server on this machine, and pages on which a person answers image by image."""
