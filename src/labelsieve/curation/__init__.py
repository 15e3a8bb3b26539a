"""What is worth knowing of images beside wrong labels: copies, leaks between splits, and images of no class."""
