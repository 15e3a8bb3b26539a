"""Several labels an image: which given tags are wrong, and which are missing, pair by pair of image and class."""
