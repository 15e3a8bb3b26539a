"""What every part rests on: errors, checks of settings, files and folders, seeds, devices, memory, progress."""
