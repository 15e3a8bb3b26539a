"""The base of all other packages: errors, checks of settings, files and folders, seeds, devices, memory, progress."""
